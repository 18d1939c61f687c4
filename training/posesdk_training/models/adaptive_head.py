"""Offset head of its own for every keypoint, with adaptive convolutions (DEKR, Geng et al., CVPR 2021, section 3.2).

The towers of all keypoints go side by side as groups of one convolution. The deformable convolution is written on
plain sampling, since torchvision's operator does not load beside every build of torch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AdaptBlock", "AdaptiveOffsets", "deformable_conv3x3"]

TAPS = 9
"""Of a 3x3 kernel, row by row."""
AFFINE = 6
"""A 2x2 matrix, row by row, and a translation (y, x)."""
BLOCKS = 2
CONV_STD = 0.001
"""Published initialisation of the head's convolutions."""


def deformable_conv3x3(x: Tensor, taps: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution that reads its taps at free places: (B, G*C, h, w) -> (B, G*O, h, w).

    `taps` (B, G, 2, 9, h, w): y and x, in cells, from the cell to where each tap is read, bilinearly, 0 outside of the
    map; `weight` (G*O, C, 3, 3). Equal to deformable convolution (Dai et al., ICCV 2017) whose offsets are the taps
    less the regular ones, with a group of offsets for each of G groups.
    """
    batch, groups, _, _, height, width = taps.shape
    rows = torch.arange(height, device=taps.device, dtype=taps.dtype)
    columns = torch.arange(width, device=taps.device, dtype=taps.dtype)
    y = (2 * (rows[:, None] + taps[:, :, 0]) + 1) / height - 1
    x_place = (2 * (columns + taps[:, :, 1]) + 1) / width - 1
    grid = torch.stack((x_place, y), dim=-1).reshape(batch * groups, TAPS * height, width, 2)
    maps = x.reshape(batch * groups, -1, height, width).to(grid.dtype)
    read = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    read = read.reshape(batch, -1, height, width)  # (B, G * C * 9, h, w)
    return F.conv2d(read, weight.flatten(1)[:, :, None, None].to(read.dtype), groups=groups)


class AdaptBlock(nn.Module):
    """Residual block of a deformable 3x3 convolution whose taps are an affine map of the regular ones, at every cell.

    (B, G*C, h, w) -> (B, G*C, h, w), G groups that know nothing of each other.
    """

    regular: Tensor

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.affine = nn.Conv2d(groups * channels, groups * AFFINE, 3, padding=1, groups=groups)
        self.weight = nn.Parameter(torch.empty(groups * channels, channels, 3, 3))
        self.norm = nn.BatchNorm2d(groups * channels)
        steps = torch.arange(3.0) - 1
        regular = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)  # (2, 9): y, x
        self.register_buffer("regular", regular, persistent=False)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def taps(self, x: Tensor) -> Tensor:
        """Where the taps are read, (B, G, 2, 9, h, w) as y and x from the cell: matrix times regular tap, moved on."""
        batch, _, height, width = x.shape
        # Row 0 is for y and row 1 for x, of matrix columns for y and x and the translation.
        affine: Tensor = self.affine(x).float().reshape(batch, self.groups, AFFINE, height, width)
        y, x_step = self.regular[:, :, None, None]  # (9, 1, 1) each
        rows = [
            affine[:, :, row : row + 1] * y + affine[:, :, row + 1 : row + 2] * x_step + affine[:, :, move : move + 1]
            for row, move in ((0, 4), (2, 5))
        ]
        return torch.stack(rows, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; at the start of training all taps are read at the cell itself, as published."""
        return F.relu(self.norm(deformable_conv3x3(x, self.taps(x), self.weight)) + x)


class AdaptiveOffsets(nn.Module):
    """(B, K*C, h, w), C channels of each keypoint, -> offsets (B, 2KQ, h, w), center by center.

    A tower of two `AdaptBlock` and a 1x1 convolution for every keypoint, with all centers' offsets from one tower.
    """

    def __init__(self, keypoints: int, centers: int, channels: int) -> None:
        super().__init__()
        self.shape = (keypoints, centers, 2)
        self.blocks = nn.Sequential(*(AdaptBlock(keypoints, channels) for _ in range(BLOCKS)))
        self.output = nn.Conv2d(keypoints * channels, math.prod(self.shape), 1, groups=keypoints)
        nn.init.normal_(self.output.weight, std=CONV_STD)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The offsets, in units of the head's scale."""
        offsets: Tensor = self.output(self.blocks(x))
        batch, _, height, width = offsets.shape
        return offsets.reshape(batch, *self.shape, height, width).transpose(1, 2).flatten(1, 3)
