"""Puts drawn people before a background, with shadows, things in front of them, blur and noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.backgrounds import Backgrounds
from posesdk_training.synthetic.camera import Camera
from posesdk_training.synthetic.renderer import Drawing

__all__ = ["Composition", "composed"]

Floats = NDArray[np.float32]

OCCLUDED_SHARE = 0.35
"""Share of the pictures with things in front of people."""


@dataclass(frozen=True, slots=True)
class Composition:
    """`image` (H, W, 3) uint8 BGR; `ids` (H, W) the number of the person who is seen, 0 for none."""

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]


def composed(rng: np.random.Generator, drawing: Drawing, backgrounds: Backgrounds, camera: Camera) -> Composition:
    """A finished picture."""
    place = backgrounds(rng, camera)
    if drawing.shadow is not None:
        soft = cv2.GaussianBlur(drawing.shadow, (0, 0), rng.uniform(1, 6))[..., None]
        place = place * (1 - soft * np.float32(rng.uniform(0.2, 0.6)))
    opacity = drawing.opacity[..., None]
    exposure = np.clip(place.mean((0, 1)) / 110.0, 0.35, 1.6)
    adaption = rng.uniform(0, 0.7)
    people = drawing.color * ((1 - adaption) + adaption * exposure).astype(np.float32)
    image = np.minimum(people, 255 * opacity) + place * (1 - opacity)
    ids = drawing.ids.copy()
    if rng.random() < OCCLUDED_SHARE:
        for _ in range(int(rng.integers(1, 4))):
            image = _with_thing(rng, image, ids, backgrounds)
    return Composition(np.clip(_photographed(rng, image), 0, 255).astype(np.uint8), ids)


def _with_thing(rng: np.random.Generator, image: Floats, ids: NDArray[np.uint8], backgrounds: Backgrounds) -> Floats:
    """Something in front of everybody: a box, a blob, a bar from the side or a polygon; erased from `ids`."""
    height, width = ids.shape
    mask = np.zeros((height, width), dtype=np.uint8)
    across, down = int(width * rng.uniform(0.05, 0.4)), int(height * rng.uniform(0.05, 0.4))
    x, y = int(rng.integers(-across // 2, width - across // 2)), int(rng.integers(-down // 2, height - down // 2))
    kind = rng.random()
    if kind < 0.35:
        cv2.rectangle(mask, (x, y), (x + across, y + down), 255, -1)
    elif kind < 0.55:
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(mask, (x + across // 2, y + down // 2), (across // 2 + 1, down // 2 + 1), angle, 0, 360, 255, -1)
    elif kind < 0.75:
        start = int(height * rng.uniform(0.55, 0.95))
        cv2.rectangle(mask, (x, start), (x + 2 * across, height), 255, -1)
    else:
        corners = np.stack([x + across * rng.random(7), y + down * rng.random(7)], axis=1)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    if rng.random() < 0.7:
        paint = backgrounds.piece(rng, (width, height))
    else:
        paint = np.tile(rng.uniform(0, 255, 3).astype(np.float32), (height, width, 1))
    share = cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32)[..., None] / np.float32(255)
    ids[mask > 127] = 0
    return np.asarray(image * (1 - share) + paint * share, dtype=np.float32)


def _photographed(rng: np.random.Generator, image: Floats) -> Floats:
    """Lens blur, motion blur, exposure and noise."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1)), dtype=np.float32)
    if rng.random() < 0.1:
        reach = int(rng.integers(2, 6))
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
        angle = rng.uniform(0, np.pi)
        step = np.array([np.cos(angle), np.sin(angle)]) * reach
        start, end = ((reach + sign * step).astype(int) for sign in (-1, 1))
        cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0, 1)
        image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 6))
    return np.asarray(image * np.float32(rng.uniform(0.75, 1.2)) + noise, dtype=np.float32)
