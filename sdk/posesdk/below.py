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
    room = _room(heatmaps.shape[1:], size)
    corner = np.ascontiguousarray(points.T) - np.float32(size // 2)
    # Pixel p lies above cell floor((p - 1.5)/4), which for whole p is floor((p - 2)/4).
    place = corner - np.float32(2)
    np.minimum(np.maximum(place, room.lowest, out=place), room.highest, out=place)
    pixel = np.floor(place)
    start, phase = np.divmod(pixel.astype(np.intp), STRIDE)
    return Below(_cells(start, channels, heatmaps, room), corner, phase, place - pixel, room.sides)


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Where windows of a size may be in maps of a size.

    `sides` (2, 1) of the maps in cells, along x and y, and `last` (2, 1, 1) their last cells. A window whose corner is
    `lowest` px or less, or (2, 1) `highest` or more, lies wholly outside: it sees the border cell alone, wherever it
    is. `steps` (b, 1) from the first cell below a window to all b of them.
    """

    sides: IndexArray
    last: IndexArray
    lowest: np.float32
    highest: FloatArray
    steps: IndexArray


@lru_cache(maxsize=16)
def _room(sides: tuple[int, int], size: int) -> _Room:
    along = np.array(sides[::-1])[:, None]
    return _Room(
        along,
        along[..., None] - 1,
        np.float32(-size - 2 * STRIDE),
        (along * STRIDE + STRIDE).astype(np.float32),
        np.arange(upsampling_matrix(size).shape[1])[:, None],
    )


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


def _cells(start: IndexArray, channels: IndexArray, heatmaps: FloatArray, room: _Room) -> FloatArray:
    """(b, b, P) from the cells `start` (2, P) on."""
    order, map_step, steps = _memory_order(heatmaps.shape, heatmaps.strides)
    flat = np.asarray(heatmaps.transpose(order).reshape(-1), np.float32)
    along = start[:, None] + room.steps  # (2, b, P)
    np.minimum(np.maximum(along, 0, out=along), room.last, out=along)
    along *= steps
    along[0] += channels * map_step
    shape = (len(room.steps), *along.shape[1:])
    index = np.add(along[1, :, None], along[0], out=_scratch.array("index", shape, np.intp))
    return flat.take(index, out=_scratch.array("cells", shape), mode="clip")  # else it is buffered


@lru_cache(maxsize=16)
def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], int, IndexArray]:
    """The axes of maps (C, h, w) as they lie in memory, the outermost first, and how far neighbours are apart there.

    From map to map, and (2, 1, 1) along x and y. A backend may have all channels of a place side by side.
    """
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    steps, step = [0] * len(shape), 1
    for axis in reversed(order):
        steps[axis] = step
        step *= shape[axis]
    return tuple(order), steps[0], np.array(steps[:0:-1])[:, None, None]
