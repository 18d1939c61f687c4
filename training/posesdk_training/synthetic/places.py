"""Drawn backgrounds: rooms and open ground in the camera's perspective, with clutter."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.camera import Camera

__all__ = ["drawn_place"]

Floats = NDArray[np.float32]
Piece = Callable[[np.random.Generator, tuple[int, int]], Floats]


def drawn_place(rng: np.random.Generator, camera: Camera, piece: Piece) -> Floats:
    """(H, W, 3) BGR 0..255: what stands upright, a ground below the camera's horizon, and things on it.

    `piece` gives a random (h, w, 3) piece of a photo for a size (width, height).
    """
    size = (camera.width, camera.height)
    upright = _surface(rng, size, piece)
    ground = _surface(rng, size, piece)
    below = _below_horizon(camera, float(rng.choice([0.0, rng.uniform(0.02, 0.35)])))
    share = np.clip(below / rng.choice([1.0, 3.0]) + 0.5, 0, 1).astype(np.float32)[..., None]
    place = np.asarray(upright * (1 - share) + _receding(rng, ground, below) * share, dtype=np.float32)
    for _ in range(int(rng.integers(0, 9))):
        _add_thing(rng, place, piece)
    return place


def _surface(rng: np.random.Generator, size: tuple[int, int], piece: Piece) -> Floats:
    """A gradient, noise, a piece of a photo blurred, or tiles."""
    kind = rng.random()
    color, other = (rng.uniform(20, 245, 3) * 0.6 + rng.uniform(20, 245) * 0.4 for _ in range(2))
    width, height = size
    surface: NDArray[Any]
    if kind < 0.35:
        way = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        surface = np.tile(color * (1 - way) + other * way, (1, width, 1))
    elif kind < 0.65:
        cells = int(rng.integers(3, 40))
        noise = cv2.resize(rng.random((cells, cells, 1)), size, interpolation=cv2.INTER_CUBIC)[..., None]
        fine = rng.random((height, width, 1)) * rng.uniform(0, 0.3)
        surface = color + (other - color) * (noise * rng.uniform(0.2, 1.0) + fine)
    elif kind < 0.85:
        surface = cv2.GaussianBlur(piece(rng, size), (0, 0), rng.uniform(0.5, 12))
    else:
        count = int(rng.integers(3, 14))
        rows, columns = np.mgrid[0:height, 0:width] * count / width
        joint = (rows % 1 < 0.06) | ((columns + (np.floor(rows) % 2) * 0.5) % 1 < 0.06)
        surface = np.where(joint[..., None], other, color) + rng.normal(0, 4, (height, width, 1))
    return np.asarray(surface, dtype=np.float32)


def _below_horizon(camera: Camera, nearer: float) -> Floats:
    """(H, W) px below the horizon, or below where the ground meets a wall: `nearer` image heights lower."""
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float32)
    x = (columns - camera.width / 2) / camera.focal
    y = -(rows - camera.height / 2) / camera.focal
    height = camera.up[0] * x + camera.up[1] * y - camera.up[2]
    return np.asarray(-height * camera.focal - nearer * camera.height, dtype=np.float32)


def _receding(rng: np.random.Generator, ground: Floats, below: Floats) -> Floats:
    """The ground darkens or lightens with its distance."""
    share = np.clip(below / max(1.0, float(below.max())), 0, 1)[..., None]
    return np.asarray(ground * (1 + rng.uniform(-0.4, 0.4) * (1 - share)), dtype=np.float32)


def _add_thing(rng: np.random.Generator, place: Floats, piece: Piece) -> None:
    """A box, a disc, a bar or a polygon of one color or of a photo."""
    height, width = place.shape[:2]
    mask = np.zeros((height, width), dtype=np.uint8)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    a, b = (int(rng.uniform(0.03, 0.3) * length) + 2 for length in (width, height))
    kind = rng.random()
    if kind < 0.4:
        cv2.rectangle(mask, (x - a // 2, y - b // 2), (x + a // 2, y + b // 2), 255, -1)
    elif kind < 0.55:
        cv2.ellipse(mask, (x, y), (a // 2, b // 2), float(rng.uniform(0, 180)), 0, 360, 255, -1)
    elif kind < 0.75:
        end = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.line(mask, (x, y), end, 255, int(rng.integers(1, 9)), cv2.LINE_AA)
    else:
        corners = np.stack([x + a * rng.normal(0, 0.6, 6), y + b * rng.normal(0, 0.6, 6)], axis=1)
        cv2.fillPoly(mask, [cv2.convexHull(corners.astype(np.int32))], 255)
    paint = piece(rng, (width, height)) if rng.random() < 0.4 else np.float32(rng.uniform(0, 255, 3))
    share = mask.astype(np.float32)[..., None] / np.float32(255)
    light = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.8, 1.3), width, dtype=np.float32)[None, :, None]
    place[:] = place * (1 - share) + paint * light * share
