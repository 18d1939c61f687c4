"""The cells of heatmaps that lie below windows around keypoints, and how window and cells lie to each other.

Keypoints stand last in every array, next to each other in memory: what is done to one is done to all in one loop.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.scratch import Scratch
from posesdk.spec import STRIDE

__all__ = ["Below", "cells_below", "upsampling_matrix"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

_scratch = Scratch()


@dataclass(frozen=True, slots=True, eq=False)
class Below:
    """What is below P windows, until the thread asks for the next ones.

    `cells` (b, b, P), rows first. Along x and y, (2, P): `corner`, the net px of a window's first sample, which lies
    above the first cell, `fraction` of a pixel behind the pixel number `phase` of the 4 that begin 0.5 px behind the
    cell's middle. `sides` (2, 1) of the maps in cells.
    """

    cells: FloatArray
    corner: FloatArray
    phase: IndexArray
    fraction: FloatArray
    sides: IndexArray

    def take(self, chosen: IndexArray) -> "Below":
        """Those of the windows with these indices."""
        corner, fraction = self.corner[:, chosen], self.fraction[:, chosen]
        return Below(self.cells[:, :, chosen], corner, self.phase[:, chosen], fraction, self.sides)

    def border_factor(self, steps: IndexArray) -> FloatArray:
        """A factor (2, s, P) of samples that are `steps` (s, 1) or (2, s, P) px behind the corner: the published fault.

        Beyond the last pixel, the value falls to 0 and ramps up again.
        """
        beyond = self.corner[:, None] + steps - (self.sides * STRIDE - 1)[..., None]
        return np.where((beyond >= 0) & (beyond < 1), beyond, 1).astype(np.float32)


def cells_below(points: FloatArray, channels: IndexArray, heatmaps: FloatArray, size: int) -> Below:
    """Of windows of `size` samples, 1 net px apart, around `points` (P, 2) in the maps `channels` (P,).

    `heatmaps` (C, h, w); what lies beyond their border is as the border.
    """
    sides = np.array(heatmaps.shape[:0:-1])[:, None]  # (2, 1), along x and y
    corner = np.ascontiguousarray(points.T) - np.float32(size // 2)
    # A window that lies wholly outside sees the border cell alone, wherever it is.
    place = np.minimum(np.maximum(corner, np.float32(-size - STRIDE)), (sides * STRIDE + STRIDE).astype(np.float32))
    # Pixel p lies above cell floor((p - 1.5)/4), which for whole p is floor((p - 2)/4).
    place -= np.float32(2)
    start = np.floor(place / np.float32(STRIDE))
    place -= start * np.float32(STRIDE)
    phase = np.floor(place)
    place -= phase
    cells = _cells(start.astype(np.intp), channels, heatmaps, upsampling_matrix(size).shape[1])
    return Below(cells, corner, phase.astype(np.intp), place, sides)


@lru_cache(maxsize=8)
def upsampling_matrix(size: int) -> FloatArray:
    """(size + 4, b): from b cells to the pixels that begin 0.5 px after the middle of the first cell, 4 px a cell."""
    pixels = np.arange(size + STRIDE)
    cell, phase = np.divmod(pixels, STRIDE)
    weight = (phase + 0.5) / STRIDE
    matrix = np.zeros((len(pixels), cell[-1] + 2), np.float32)
    matrix[pixels, cell] = 1 - weight
    matrix[pixels, cell + 1] = weight
    return matrix


def _cells(start: IndexArray, channels: IndexArray, heatmaps: FloatArray, count: int) -> FloatArray:
    """(b, b, P) from the cells `start` (2, P) on."""
    flat, (map_step, *steps) = _flattened(heatmaps)
    last = np.array(heatmaps.shape[:0:-1])[:, None, None] - 1
    along = start[:, None] + np.arange(count)[:, None]  # (2, b, P)
    np.minimum(np.maximum(along, 0, out=along), last, out=along)
    along *= np.array(steps[::-1])[:, None, None]
    along[0] += channels * map_step
    shape = (count, *along.shape[1:])
    index = np.add(along[1, :, None], along[0], out=_scratch.array("index", shape, np.intp))
    return flat.take(index, out=_scratch.array("cells", shape), mode="clip")  # else it is buffered


def _flattened(maps: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
    """The values of maps (C, h, w) as they lie in memory, and how far apart neighbours along each axis are there.

    A backend may have all channels of a place side by side.
    """
    order = sorted(range(maps.ndim), key=lambda axis: -maps.strides[axis])
    flat = np.asarray(maps.transpose(order).reshape(-1), np.float32)
    steps, step = [0] * maps.ndim, 1
    for axis in reversed(order):
        steps[axis] = step
        step *= maps.shape[axis]
    return flat, tuple(steps)
