"""Scenes after real annotations: people stand, sit and are cut off where annotated people of a photo are.

For each labelled person the best of many poses and views is taken, with limbs of other poses where they fit better, so
that sizes, truncation and crowding are those of real photos.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.synthetic.camera import Camera, random_camera
from posesdk_training.synthetic.cast import SOLE, Cast
from posesdk_training.synthetic.fitting import best_fit, with_fitting_limbs
from posesdk_training.synthetic.poses import jittered
from posesdk_training.synthetic.rotations import axis_rotation
from posesdk_training.synthetic.scene import Person, Scene, hung_person, zoomed

__all__ = ["Layout", "layout_scene", "read_layouts"]

Floats = NDArray[np.float64]

MIN_LABELLED = 5
MIN_HEIGHT = 24.0
"""px of the picture; smaller people are left out."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The labelled people of a photo: `keypoints` (P, 17, 3) x, y in px and v; `size` (width, height)."""

    keypoints: Floats
    size: tuple[int, int]


def read_layouts(path: Path) -> tuple[Layout, ...]:
    """The photos of a COCO keypoint file with somebody of whom MIN_LABELLED keypoints are labelled.

    Raises DataError for a file without any.
    """
    try:
        tree = json.loads(path.read_bytes())
        people: dict[int, list[list[float]]] = {entry["id"]: [] for entry in tree["images"]}
        for annotation in tree["annotations"]:
            keypoints = annotation.get("keypoints") or []
            if sum(value > 0 for value in keypoints[2::3]) >= MIN_LABELLED and not annotation.get("iscrowd", 0):
                people[annotation["image_id"]].append(keypoints)
        layouts = tuple(
            Layout(
                np.array(people[entry["id"]], dtype=np.float64).reshape(-1, 17, 3),
                (int(entry["width"]), int(entry["height"])),
            )
            for entry in tree["images"]
            if people[entry["id"]]
        )
    except OSError as error:
        raise DataError(f"cannot read the layouts {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read the layouts {path}: {error!r}; expected COCO keypoints, 17 a person") from error
    if not layouts:
        raise DataError(f"nobody in {path} has {MIN_LABELLED} labelled keypoints")
    return layouts


def layout_scene(rng: np.random.Generator, cast: Cast, size: tuple[int, int], layout: Layout, *, most: int) -> Scene:
    """At most `most` people where those of a window of the photo are, in a picture of `size` (width, height)."""
    camera = random_camera(rng, size)
    windowed = _windowed(rng, layout, size)[:most]
    fits = [best_fit(rng, cast, camera, labelled) for labelled in windowed]
    camera = zoomed(camera, max((fit.scale for fit in fits), default=0.0))
    people: list[Person] = []
    for fit, labelled in zip(fits, windowed, strict=True):
        number = int(rng.integers(cast.size))
        turns = jittered(rng, cast.rig, with_fitting_limbs(cast, camera, labelled, fit))
        # As large as the figure that was fitted, whoever plays it.
        distance = camera.focal / fit.scale * cast[number].height / cast.figure_height
        pelvis = camera.unproject(fit.pelvis, distance)
        people.append(hung_person(cast, camera, number, turns, facing=axis_rotation("y", fit.yaw), pelvis=pelvis))
    return Scene(camera, tuple(people), _ground(camera, people))


def _ground(camera: Camera, people: list[Person]) -> Floats:
    """(4,) the plane on which the middle one of the people stands."""
    lowest = [float((person.keypoints @ camera.rotation)[:, 1].min()) for person in people]
    height = float(np.median(lowest)) - SOLE if lowest else -10.0
    return np.append(camera.up, height)


def _windowed(rng: np.random.Generator, layout: Layout, size: tuple[int, int]) -> list[Floats]:
    """The people (17, 3) of a random window around one of them, in px of the picture, the largest first."""
    width, height = layout.size
    ratio = size[0] / size[1]
    across = max(width, height * ratio) * rng.uniform(0.5, 1.0)
    chosen = layout.keypoints[rng.integers(len(layout.keypoints))]
    points = chosen[chosen[:, 2] > 0, :2]
    middle = points.mean(0) + rng.normal(0, 0.25, 2) * across
    corner = middle - np.array([across, across / ratio]) / 2
    flipped = rng.random() < 0.5
    people = []
    for keypoints in layout.keypoints:
        moved = keypoints.copy()
        moved[:, :2] = (keypoints[:, :2] - corner) * size[0] / across
        if flipped:
            moved[:, 0] = size[0] - 1 - moved[:, 0]
            moved = moved[COCO_17.flip_indices]
        known = moved[:, 2] > 0
        inside = known & (moved[:, :2] >= 0).all(1) & (moved[:, :2] < size).all(1)
        if inside.sum() >= 2 and np.ptp(moved[known, 1]) >= MIN_HEIGHT:
            people.append(moved)
    return sorted(people, key=lambda person: -float(np.ptp(person[person[:, 2] > 0, 1])))
