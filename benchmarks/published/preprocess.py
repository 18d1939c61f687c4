"""From a picture to the network's input and back, as published."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Warp", "make_warp"]

MULTIPLE = 64
"""Of the sides of the network's input."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LEVELS = 255


@dataclass(frozen=True)
class Warp:
    """One uniform `scale` that takes the picture's `center` (x, y) to the middle of the input of `size` (W, H)."""

    size: tuple[int, int]
    center: tuple[int, int]
    scale: float

    def input_of(self, image: NDArray[np.uint8]) -> Tensor:
        """Normalised RGB (1, 3, H, W) of a picture (h, w, 3) uint8 BGR; outside of the picture it is black."""
        (width, height), (x, y) = self.size, self.center
        matrix = np.array([[self.scale, 0, width / 2 - self.scale * x], [0, self.scale, height / 2 - self.scale * y]])
        rgb = cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), matrix, self.size, flags=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float().div(LEVELS)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return pixels.sub_(mean).div_(std)[None]

    def to_picture(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) of the input, in net px, as points of the picture."""
        moved: NDArray[np.float32] = (points - np.array(self.size) / 2) / self.scale + np.array(self.center)
        return moved.astype(np.float32)


def make_warp(image_size: tuple[int, int], side: int) -> Warp:
    """That of a picture (height, width) whose short side becomes `side`, rounded up to a multiple of 64."""
    height, width = image_size
    short = -(-side // MULTIPLE) * MULTIPLE
    scale = short / min(height, width)
    long = int((short / min(height, width) * max(height, width) + MULTIPLE - 1) // MULTIPLE * MULTIPLE)
    size = (short, long) if width < height else (long, short)
    return Warp(size, (int(width / 2 + 0.5), int(height / 2 + 0.5)), scale)
