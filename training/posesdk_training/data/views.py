"""The views of one crop that the branches of multi-scale training see (DAC, section 3.1 and figure 2).

All views of a crop come from one placement: a cell of the map shows the same in each of them, flipped or not, as in the
consistent frame pixels shrink and grow about their edges. They are rendered once, at the highest resolution, and
averaged down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from posesdk_training.data.augment import Placement
from posesdk_training.settings.branches import BranchConfig, BranchName

__all__ = [
    "View",
    "enlarged",
    "enlarged_matrix",
    "fields_of_view",
    "filled_up",
    "finest_scale",
    "shrunk",
    "zoomed",
    "zoomed_matrix",
]

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """What a branch beside 4x sees and learns of B samples.

    `images` (B, 3, s, s) uint8 RGB, with s twice or half the samples' side, filled up on the right and below to what
    the deployed stem takes where that is the branch's; the dense targets and their weights are named as those of the
    batch, and have its cells or the input's own.
    """

    branch: BranchName
    images: torch.Tensor
    heatmaps: torch.Tensor
    heatmap_weights: torch.Tensor
    offsets: torch.Tensor
    offset_weights: torch.Tensor

    def to(self, device: torch.device) -> "View":
        """The same view on a device."""
        names = ("images", "heatmaps", "heatmap_weights", "offsets", "offset_weights")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def fields_of_view(branches: Sequence[BranchConfig]) -> tuple[tuple[BranchConfig, ...], ...]:
    """The branches by what they see, those that see what 4x sees first."""
    zooms = sorted({branch.zoom for branch in branches}, key=lambda zoom: (zoom != 1, zoom))
    return tuple(tuple(branch for branch in branches if branch.zoom == zoom) for zoom in zooms)


def finest_scale(branches: Sequence[BranchConfig]) -> int:
    """The side at which branches with one field of view are rendered, over that of the sample."""
    return max(1, *(int(branch.input_scale) for branch in branches))


def zoomed(placement: Placement, zoom: float) -> Placement:
    """A crop about the same middle, of as many net px, whose side is `zoom` times as long in the photo."""
    return replace(placement, matrix=zoomed_matrix(placement.matrix, zoom, placement.size))


def zoomed_matrix(matrix: Floats, zoom: float, size: int) -> Floats:
    """Matrices (..., 2, 3) orig px to net px of crops of side `size`, of which `zoomed` tells, flipped or not."""
    if zoom == 1:
        return matrix
    middle = (size - 1) / 2
    return np.asarray(matrix / zoom + np.array([[0, 0, middle * (1 - 1 / zoom)]]))


def enlarged(placement: Placement, factor: float) -> Placement:
    """The same crop in `factor` times as many net px a side: X + 1/2 becomes factor (X + 1/2)."""
    return replace(placement, matrix=enlarged_matrix(placement.matrix, factor), size=round(factor * placement.size))


def enlarged_matrix(matrix: Floats, factor: float) -> Floats:
    """Matrices (..., 2, 3) orig px to net px of crops of which `enlarged` tells, flipped or not."""
    if factor == 1:
        return matrix
    return np.asarray(factor * matrix + np.array([[0, 0, (factor - 1) / 2]]))


def shrunk(pixels: Image, side: int) -> Image:
    """Pixels (S, S, 3) as (side, side, 3), each the mean of those that it covers; S is a multiple of `side`."""
    if len(pixels) == side:
        return pixels
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def filled_up(pixels: Image, multiple: int, border: tuple[int, int, int]) -> Image:
    """Pixels (S, S, 3) with a `border` on the right and below that makes their side a multiple."""
    missing = -len(pixels) % multiple
    if missing == 0:
        return pixels
    filled = cv2.copyMakeBorder(pixels, 0, missing, 0, missing, cv2.BORDER_CONSTANT, value=border)
    return np.asarray(filled, dtype=np.uint8)
