"""A random scene: people on one ground plane in front of a random camera."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.camera import Camera, random_camera
from posesdk_training.synthetic.cast import Cast
from posesdk_training.synthetic.poses import jittered
from posesdk_training.synthetic.rotations import axis_rotation, rotations

__all__ = ["Person", "Scene", "hung_person", "random_scene", "standing_person", "zoomed"]

Floats = NDArray[np.float64]

PERSON_HEIGHT = 17.0
"""dm; what the apparent sizes below refer to."""

MIN_GAP = 3.0
"""Between the places where two people stand, in dm."""

MIN_DISTANCE = 16.0
"""dm from the camera; nearer people would be distorted as photos seldom are."""

TILTED = 0.06
"""Share of people who are not upright at all: lying, jumping, falling."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person: `matrices` (B, 4, 4) from the rest pose to the camera's frame, `keypoints` (17, 3) in that frame."""

    character: int
    matrices: Floats
    keypoints: Floats


@dataclass(frozen=True, slots=True)
class Scene:
    """`ground` (4,): the unit normal n of the ground in the camera's frame and d, with n.p = d on it."""

    camera: Camera
    people: tuple[Person, ...]
    ground: Floats


def random_scene(rng: np.random.Generator, cast: Cast, size: tuple[int, int], count: int) -> Scene:
    """`count` people (fewer where there is no room) in an image of `size` (width, height)."""
    camera = random_camera(rng, size)
    height = size[1]
    low, high = (0.9, 2.2) if rng.random() < 0.2 else (0.28, 1.1)
    apparent = float(np.exp(rng.uniform(np.log(low * height), np.log(high * height))))
    camera = zoomed(camera, apparent / PERSON_HEIGHT)
    depth = camera.focal * PERSON_HEIGHT / apparent
    people: list[Person] = []
    places: list[Floats] = []
    ground = 0.0
    for index in range(count):
        number = int(rng.integers(cast.size))
        distance = depth if index == 0 else depth * float(np.exp(rng.normal(0.05, 0.28)))
        place = _place(rng, camera, cast[number].height, distance, ground if places else None)
        if not places:
            ground = float(place[1])
        elif rng.random() < 0.06:
            place[1] += rng.uniform(-2, 5)  # stairs, a jump, a hill
        if any(np.linalg.norm((place - other)[[0, 2]]) < MIN_GAP for other in places):
            continue
        places.append(place)
        people.append(_random_person(rng, cast, camera, number, place))
    plane = np.append(camera.up, camera.up @ (camera.rotation @ np.array([0.0, ground, 0.0])))
    return Scene(camera, tuple(people), plane)


def zoomed(camera: Camera, scale: float) -> Camera:
    """The camera with a focal length at which people of `scale` px per dm are not nearer than MIN_DISTANCE."""
    return replace(camera, focal=max(camera.focal, MIN_DISTANCE * scale))


def _place(rng: np.random.Generator, camera: Camera, height: float, distance: float, ground: float | None) -> Floats:
    """(3,) where a person stands, world axes; with `ground` None, the middle of the body is near the image's."""
    width = camera.width
    if ground is None:
        tall = camera.focal * height / distance
        # Of a close person mostly the upper body is shown, sometimes any part.
        lowered = rng.uniform(0.35, 0.5) if rng.random() < 0.75 else rng.uniform(-0.4, 0.35)
        center = 0.5 + max(0.0, tall / camera.height - 0.9) * lowered
        pixel = (rng.uniform(0.12, 0.88) * width, (center + rng.uniform(-0.12, 0.12)) * camera.height)
        point = camera.unproject(pixel, distance)
        return np.array([point[0], point[1] - height / 2, point[2]])
    across = (rng.uniform(-0.02, 1.02) - 0.5) * width * distance / camera.focal
    back = camera.rotation.T
    # The height in the camera's frame at which the middle of the body stands over the ground.
    y = (ground + height / 2 - back[1, 0] * across + back[1, 2] * distance) / back[1, 1]
    point = back @ np.array([across, y, -distance])
    return np.array([point[0], ground, point[2]])


def _random_person(rng: np.random.Generator, cast: Cast, camera: Camera, number: int, place: Floats) -> Person:
    turns = jittered(rng, cast.rig, cast.library.turns[rng.integers(len(cast.library.turns))])
    yaw = rng.uniform(-np.pi, np.pi) if rng.random() < 0.6 else rng.normal(0, 0.6)
    facing = axis_rotation("y", yaw)
    if rng.random() < TILTED:
        facing = rotations(rng.normal(0, 1.0, 3)) @ facing
    return standing_person(cast, camera, number, turns, facing=facing, place=place)


def standing_person(cast: Cast, camera: Camera, number: int, turns: Floats, *, facing: Floats, place: Floats) -> Person:
    """A character in a pose (B, 3, 3), with its lowest point at `place` (3,) in the world's axes."""
    matrices, keypoints, lowest = cast.posed(cast[number], turns, facing)
    root = cast[number].heads[0]
    return _seen(camera, Person(number, matrices, keypoints), place - np.array([root[0], lowest, root[2]]))


def hung_person(cast: Cast, camera: Camera, number: int, turns: Floats, *, facing: Floats, pelvis: Floats) -> Person:
    """A character in a pose (B, 3, 3), with the head of its root bone at `pelvis` (3,) in the world's axes."""
    matrices, keypoints, _ = cast.posed(cast[number], turns, facing)
    return _seen(camera, Person(number, matrices, keypoints), pelvis - cast[number].heads[0])


def _seen(camera: Camera, person: Person, shift: Floats) -> Person:
    """A person of the world's axes, moved by `shift` (3,), in the camera's frame."""
    view = np.eye(4)
    view[:3, :3] = camera.rotation
    view[:3, 3] = camera.rotation @ shift
    return Person(person.character, view @ person.matrices, person.keypoints @ camera.rotation.T + view[:3, 3])
