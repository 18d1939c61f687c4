"""An outdoor scene without people, painted from noise: paving, hedge, houses and sky, and the camera that sees it."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera", "paint_scenery", "value_noise"]

Floats = NDArray[Any]

FAR = 60.0
"""Metres after which the ground is drawn as one colour."""


@dataclass(frozen=True)
class Camera:
    """A pinhole at (0, `height`, 0), looking along -z, `pitch` radians down; `focal`, `size` (h, w) in pixels."""

    size: tuple[int, int]
    focal: float
    height: float
    pitch: float

    def rays(self, samples: int) -> Floats:
        """Unit directions (H * samples, W * samples, 3) through the middles of the picture's sub-pixels."""
        height, width = self.size
        x = (np.arange(width * samples, dtype=np.float32) + 0.5) / samples - width / 2
        y = (np.arange(height * samples, dtype=np.float32) + 0.5) / samples - height / 2
        flat = np.empty((height * samples, width * samples, 3), np.float32)
        flat[..., 0], flat[..., 1], flat[..., 2] = x[None, :], -y[:, None], -self.focal
        directions = flat @ self._turn().T
        return np.asarray(directions / np.linalg.norm(directions, axis=-1, keepdims=True), np.float32)

    def project(self, points: Floats) -> Floats:
        """Pixels (..., 2) of world points (..., 3); (0, 0) is the middle of the top-left pixel."""
        seen = (points - np.array([0, self.height, 0], np.float32)) @ self._turn()
        scale = self.focal / -seen[..., 2]
        height, width = self.size
        pixels = np.stack([seen[..., 0] * scale + width / 2 - 0.5, -seen[..., 1] * scale + height / 2 - 0.5], axis=-1)
        return np.asarray(pixels, np.float32)

    def _turn(self) -> Floats:
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]], np.float32)


def value_noise(rng: np.random.Generator, size: tuple[int, int], cells: int, octaves: int = 4) -> Floats:
    """Smooth noise (h, w) in 0..1: `cells` bumps over the height, halved in size and strength with each octave."""
    height, width = size
    total, weight = np.zeros(size, np.float32), 0.0
    for octave in range(octaves):
        rows = min(cells * 2**octave, height)
        columns = max(2, min(rows * width // height, width))
        grid = rng.random((rows, columns), dtype=np.float32)
        total += np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32) / 2**octave
        weight += 0.5**octave
    return np.asarray(np.clip(total / np.float32(weight), 0, 1))


def paint_scenery(rng: np.random.Generator, camera: Camera, rays: Floats) -> tuple[Floats, Floats]:
    """Colours (H, W, 3), linear BGR in 0..1, and the way along each ray to the ground, inf for none."""
    height, width = rays.shape[:2]
    image = _paint_sky(rng, (height, width))
    horizon = int(np.argmax(rays[:, width // 2, 1] < 0))
    _paint_houses(rng, image, horizon)
    _paint_hedge(rng, image, horizon)
    blur = max(1.0, height / 400)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.float32)
    down = rays[..., 1]
    depth = np.where(down < -1e-3, -camera.height / np.minimum(down, -1e-3), np.inf).astype(np.float32)
    ground = depth < FAR
    image[ground] = _paving(rng, (rays * np.where(ground, depth, 0)[..., None])[ground])
    return np.square(image), np.where(ground, depth, np.inf).astype(np.float32)


def _paint_sky(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    ramp = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None] ** 0.7
    sky = (1 - ramp) * np.array([0.84, 0.62, 0.42], np.float32) + ramp * np.array([0.93, 0.90, 0.86], np.float32)
    clouds = np.clip(value_noise(rng, size, 3, 5) * 2.4 - 1.1, 0, 1)[..., None]
    return np.asarray(sky + (0.95 - sky) * clouds, np.float32)


def _paint_houses(rng: np.random.Generator, image: Floats, horizon: int) -> None:
    height, width = image.shape[:2]
    plaster = value_noise(rng, (height, width), 24)[..., None] * 0.12
    left = -int(rng.integers(0, width // 6))
    while left < width:
        wide = int(rng.integers(width // 6, width // 3))
        top = int(horizon - height * rng.uniform(0.25, 0.5))
        wall = rng.uniform(0.45, 0.75) * np.array([1, 1, 1]) + rng.uniform(-0.05, 0.05, 3)
        spot = (slice(max(top, 0), horizon), slice(max(left, 0), min(left + wide, width)))
        image[spot] = wall.astype(np.float32) - plaster[spot]
        step, pane = height // 11, height // 22
        for y in range(top + pane // 2, horizon - pane, step):
            for x in range(left + pane // 2, left + wide - pane, int(step * 0.85)):
                glass = rng.uniform(0.14, 0.4) * np.array([1.1, 1.0, 0.9])
                cv2.rectangle(image, (x - 3, y - 3), (x + pane // 2 + 3, y + pane + 3), (0.8, 0.82, 0.84), -1)
                cv2.rectangle(image, (x, y), (x + pane // 2, y + pane), tuple(map(float, glass)), -1)
        left += wide + int(rng.integers(0, width // 12))


def _paint_hedge(rng: np.random.Generator, image: Floats, horizon: int) -> None:
    height, width = image.shape[:2]
    outline = horizon - height * (0.07 + 0.16 * value_noise(rng, (height, width), 5, 3)[horizon])
    rows = np.arange(height, dtype=np.float32)[:, None]
    leaves = value_noise(rng, (height, width), 40, 3)
    edge = np.clip((rows - outline[None, :] + (leaves - 0.5) * height * 0.06) / 3, 0, 1)[..., None]
    green = np.array([0.16, 0.36, 0.24], np.float32) * (0.35 + 1.3 * leaves[..., None])
    image += (green - image) * edge


def _paving(rng: np.random.Generator, points: Floats) -> Floats:
    """Colours (M, 3) of ground points: slabs of 0.6 m with joints, stains and grain, fading to one grey far away."""
    shade = rng.random((64, 64), dtype=np.float32)
    column, row = points[:, 0] / 0.6, points[:, 2] / 0.6
    column = column + 0.5 * (np.floor(row) % 2)
    slab = shade[np.floor(row).astype(np.int64) % 64, np.floor(column).astype(np.int64) % 64]
    stains = value_noise(rng, (256, 256), 10, 5)
    stain = stains[(points[:, 2] * 24).astype(np.int64) % 256, (points[:, 0] * 24).astype(np.int64) % 256]
    near = np.clip(8 / np.maximum(-points[:, 2], 0.1), 0, 1)
    joint = (np.minimum(column % 1, row % 1) < 0.025) * near
    grain = rng.normal(0, 0.02, len(points)).astype(np.float32)
    gray = 0.58 + near * (0.10 * (slab - 0.5) + 0.22 * (stain - 0.5) + grain) - 0.16 * joint
    return np.asarray(gray[:, None] * np.array([0.94, 0.98, 1.0], np.float32), np.float32)
