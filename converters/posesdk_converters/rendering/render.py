"""Pictures of people by ray casting: for demonstrations and for the golden pictures of a bundle.

No photo and no foreign asset is needed, every picture is reproducible from its seed, and the true keypoints are known.
World frame: metres, x right, y up, z towards the camera; the camera stands at x = z = 0.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_converters.rendering.figure import Floats, Material, Posture, Wardrobe, build_figure
from posesdk_converters.rendering.scenery import Camera, paint_scenery
from posesdk_converters.rendering.shading import Look, shade_surface
from posesdk_converters.rendering.surface import Surface

__all__ = ["Rendering", "render_people"]

MARGIN = 0.24
"""No part of a figure is farther than this from a keypoint, sideways and up."""
SUN = np.array([0.45, 0.75, 0.5], np.float32) / np.float32(np.linalg.norm([0.45, 0.75, 0.5]))
SKIN = ((0.48, 0.62, 0.84), (0.38, 0.52, 0.76), (0.28, 0.40, 0.62), (0.16, 0.25, 0.42))
HAIR = ((0.05, 0.06, 0.08), (0.08, 0.13, 0.22), (0.14, 0.25, 0.40), (0.28, 0.46, 0.62))
SHIRTS = ((0.62, 0.28, 0.16), (0.18, 0.17, 0.66), (0.82, 0.82, 0.80), (0.24, 0.44, 0.20), (0.20, 0.62, 0.80))
TROUSERS = ((0.36, 0.24, 0.16), (0.13, 0.12, 0.11), (0.34, 0.44, 0.52), (0.24, 0.26, 0.26))
SHOES = ((0.10, 0.10, 0.11), (0.80, 0.80, 0.78), (0.12, 0.19, 0.30))


@dataclass(frozen=True)
class Rendering:
    """A picture (H, W, 3) uint8 BGR and its people's true keypoints (N, 17, 2), x, y in pixels, COCO order."""

    image: NDArray[np.uint8]
    keypoints: Floats


@dataclass(frozen=True)
class Actor:
    """A placed figure: surface and keypoints in its own frame, feet, heading (0: to the camera), scale and look."""

    surface: Surface
    keypoints: Floats
    place: Floats
    heading: float
    scale: float
    look: Look

    def to_own(self, points: Floats) -> Floats:
        """World points (M, 3) in the figure's frame."""
        return ((points - self.place) / self.scale) @ _turn(self.heading)

    def to_world(self, points: Floats) -> Floats:
        """Points (M, 3) of the figure's frame in the world."""
        return (points @ _turn(self.heading).T) * self.scale + self.place


def render_people(seed: int = 0, *, people: int = 3, size: tuple[int, int] = (480, 640), samples: int = 2) -> Rendering:
    """A picture of `people` standing, walking and waving; `size` is (height, width), `samples` squared rays a pixel.

    Raises ValueError for less than one person, sample or pixel.
    """
    if people < 1 or samples < 1 or min(size) < 1:
        raise ValueError(f"render_people: people {people}, samples {samples} and size {size} must all be at least 1")
    rng = np.random.default_rng(seed)
    camera = Camera(size, focal=0.95 * size[1] * min(1.0, 4 * size[0] / (3 * size[1])), height=1.25, pitch=0.06)
    actors = [_cast(rng, index, people) for index in range(people)]
    rays = camera.rays(samples)
    colors, depth = paint_scenery(rng, camera, rays)
    _shade_ground(camera, rays, colors, depth, actors)
    for actor in actors:
        _draw_actor(camera, rays, colors, depth, actor)
    shape = (size[0], samples, size[1], samples, 3)
    picture = np.sqrt(colors).reshape(shape).mean(axis=(1, 3))
    picture = cv2.GaussianBlur(picture, (0, 0), 0.5) + rng.normal(0, 0.012, picture.shape)
    image = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    keypoints = np.stack([camera.project(actor.to_world(actor.keypoints)) for actor in actors])
    return Rendering(image, keypoints)


def _cast(rng: np.random.Generator, index: int, people: int) -> Actor:
    """One person of `people`, side by side in front of the camera."""
    distance = rng.uniform(2.9, 3.5) + 0.35 * max(0, people - 2) + 0.4 * (index % 2)
    side = (index - (people - 1) / 2) * min(1.0, 3.3 / people) + rng.uniform(-0.08, 0.08)
    place = np.array([side * distance / 3.3, 0, -distance], np.float32)
    wardrobe = Wardrobe(rng.random() < 0.4, rng.random() < 0.3, rng.random() < 0.4, float(rng.uniform(0.92, 1.06)))
    figure = build_figure(_posture(rng, index), wardrobe)
    return Actor(
        Surface.of(figure),
        figure.keypoints,
        place,
        float(rng.uniform(-0.5, 0.5)),
        float(rng.uniform(0.92, 1.06)),
        _look(rng),
    )


def _look(rng: np.random.Generator) -> Look:
    tables: dict[Material, tuple[tuple[float, float, float], ...]] = {
        "skin": SKIN,
        "hair": HAIR,
        "shirt": SHIRTS,
        "trousers": TROUSERS,
        "shoes": SHOES,
    }
    dark = len(SKIN) // 2
    tables["skin"], tables["hair"] = (SKIN[:dark], HAIR) if rng.random() < 0.6 else (SKIN[dark:], HAIR[:dark])
    colors = {name: np.square(np.array(table[rng.integers(len(table))], np.float32)) for name, table in tables.items()}
    return Look(colors, bool(rng.random() < 0.35))


def _posture(rng: np.random.Generator, index: int) -> Posture:
    stride = float(rng.uniform(0.25, 0.45))
    if index % 3 == 0:
        return Posture(elbow=(float(rng.uniform(0.1, 0.5)), 0.25), thigh_spread=(0.1, 0.06))
    if index % 3 == 1:
        return Posture(
            arm_swing=(-stride, stride),
            elbow=(0.3, 0.6),
            thigh_swing=(stride, -0.7 * stride),
            knee=(0.1, 0.5 * stride + 0.1),
        )
    return Posture(arm_spread=(0.2, 2.2), arm_turn=(0, 1.4), elbow=(0.2, 1.1), thigh_spread=(0.05, 0.12))


def _turn(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)


def _shade_ground(camera: Camera, rays: Floats, colors: Floats, depth: Floats, actors: list[Actor]) -> None:
    """Darkens the ground, in place, where people keep the sun and the sky away."""
    eye = np.array([0, camera.height, 0], np.float32)
    step = 4
    sparse = depth[::step, ::step]
    points = eye + rays[::step, ::step] * np.where(np.isfinite(sparse), sparse, 0)[..., None]
    light = np.ones(sparse.shape, np.float32)
    for actor in actors:
        close = np.isfinite(sparse) & (np.hypot(*(points - actor.place)[..., (0, 2)].transpose(2, 0, 1)) < 2.6)
        own = actor.to_own(points[close])
        contact = np.clip(actor.surface.nearest(own + np.array([0, 0.03, 0], np.float32)) / 0.25, 0, 1)
        light[close] *= (0.42 + 0.58 * actor.surface.sunlight(own, SUN @ _turn(actor.heading), steps=20)) * (
            0.6 + 0.4 * contact
        )
    full = cv2.resize(light, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    colors *= np.where(np.isfinite(depth), full, 1)[..., None]


def _draw_actor(camera: Camera, rays: Floats, colors: Floats, depth: Floats, actor: Actor) -> None:
    """Casts the rays that can meet an actor, and paints in place what lies before `depth`."""
    samples = depth.shape[0] // camera.size[0]
    around = np.array(
        [[x, y, z] for x in (-MARGIN, MARGIN) for y in (-0.1, MARGIN) for z in (-MARGIN, MARGIN)], np.float32
    )
    pixels = camera.project(actor.to_world((actor.keypoints[:, None] + around).reshape(-1, 3))) * samples
    low = np.clip(np.floor(pixels.min(axis=0)).astype(int), 0, depth.shape[::-1])
    high = np.clip(np.ceil(pixels.max(axis=0)).astype(int), 0, depth.shape[::-1])
    spot = (slice(low[1], high[1]), slice(low[0], high[0]))
    shape = depth[spot].shape
    directions = rays[spot].reshape(-1, 3) @ _turn(actor.heading)
    eye = actor.to_own(np.array([[0, camera.height, 0]], np.float32))[0]
    hit, travelled = actor.surface.cast_rays(eye, directions)
    hit &= travelled * actor.scale < depth[spot].reshape(-1)
    points = eye + directions[hit] * travelled[hit, None]
    mask = hit.reshape(shape)
    depth[spot][mask] = travelled[hit] * actor.scale
    colors[spot][mask] = shade_surface(actor.surface, actor.look, points, SUN @ _turn(actor.heading))
