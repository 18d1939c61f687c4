"""Images fitted into the fixed inputs of published models, and points brought back."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from peers.finder import Found, Image, Laps

__all__ = ["Fit", "brought_back", "fit"]


@dataclass(frozen=True, slots=True)
class Fit:
    """How an image lies in a network's input: input px = image px * `scale` + `left`, `top`."""

    scale: float
    left: int
    top: int

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) x, y of the input in pixels of the image."""
        return (points - np.array([self.left, self.top], np.float32)) / np.float32(self.scale)


def fit(image: Image, size: tuple[int, int], *, border: int, centered: bool) -> tuple[Image, Fit]:
    """The image as large as it fits into `size` (height, width), on a `border` of that grey.

    It lies in the middle, or else in the top left corner. Bilinear, as the published models are run.
    """
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1)
    top, left = ((height - inner[0]) // 2, (width - inner[1]) // 2) if centered else (0, 0)
    canvas = np.full((height, width, 3), border, np.uint8)
    part = canvas[top : top + inner[0], left : left + inner[1]]
    if inner == image.shape[:2]:
        part[:] = image
    else:
        cv2.resize(image, (inner[1], inner[0]), dst=part, interpolation=cv2.INTER_LINEAR)
    return canvas, Fit(scale, left, top)


def brought_back(keypoints: NDArray[np.float32], scores: NDArray[np.float32], placed: Fit, laps: Laps) -> Found:
    """People with keypoints (N, 17, 3) x, y of the input and score, as they lie in the image; ends the lap "decode"."""
    keypoints[..., :2] = placed.to_image(keypoints[..., :2])
    laps.lap("decode")
    return Found(keypoints, scores, laps.spent)
