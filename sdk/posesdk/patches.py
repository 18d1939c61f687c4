"""Patches of reweighed windows around their largest cells, and what no pixel beside them exceeds.

A pixel is a mean of the cells that it lies between, times its weight, so what all of a window's pixels are at most is
known from its cells alone. Every patch begins just before the middle of a cell: the same cells then go into the same
pixels, and one matrix makes those of all keypoints, which lie next to each other in memory.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.below import Below, upsampling_matrix
from posesdk.scratch import Scratch
from posesdk.spec import STRIDE, AdaptationSpec, Frame
from posesdk.windows import gaussian_axis, gaussian_window, reweighing_sigma

__all__ = ["Patches", "blocks_of", "cut_patches"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

MARGIN = 2 * STRIDE
"""Pixels by which a patch may begin before its window or end behind it, at most."""
SMALLEST_WEIGHT = 1e-6
"""Far below what the cutoff leaves, and far above what float32 cannot divide by."""

_scratch = Scratch()


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Parts of P reweighed windows, until the thread cuts the next ones.

    `pixels` (s, s, P), 0 outside of the window; `first` (2, P) where in the window the first of them is, x and y;
    `inside` (2, s, P) 1 for columns and rows of the window, 0 for others; `rest` (P,), at least 0: no other pixel of
    the window is above it.
    """

    pixels: FloatArray
    first: IndexArray
    inside: FloatArray
    rest: FloatArray


def blocks_of(adaptation: AdaptationSpec, side: int) -> int | None:
    """How many blocks a patch needs for `side` pixels along an axis; none where windows have no room for it."""
    blocks = -(-(side - 1) // STRIDE)
    return blocks if blocks + 1 < upsampling_matrix(adaptation.global_size).shape[1] else None


def cut_patches(below: Below, adaptation: AdaptationSpec, frame: Frame, blocks: int) -> Patches:
    """A patch of 4 pixels a block, and one more, around the largest cell of each reweighed window."""
    tables = _tables(adaptation.global_size, reweighing_sigma(adaptation), blocks)
    block, rest = _largest(below.cells, tables.bounds.take(below.phase, axis=1), blocks)
    first = STRIDE * block - 1 - below.phase
    index = first[:, None] + tables.steps  # (2, s, P)
    weights = _scratch.array("weights", (2, *index.shape))
    tables.weights.take(index, out=weights[0], mode="clip")  # else it is buffered
    if frame == "published":
        weights[0] *= below.border_factor(index - MARGIN)
    np.multiply(weights[0], below.fraction[:, None], out=weights[1])
    pixels = _pixels(_cells_around(below.cells, block, blocks), tables.matrix, weights)
    if tables.kept is not None:
        pixels *= tables.kept[index[1][:, None], index[0]]
    return Patches(pixels, first, tables.inside.take(index), rest)


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What is the same for every keypoint.

    `matrix` (2 s, m + 3): from the cells along an axis around m blocks to the s pixels, and below that to the steps
    from each of them to the next one. `weights` and `inside` (a + 2 MARGIN,) of the pixels of a window along an axis,
    0 in its margins; `kept` (a + 2 MARGIN, a + 2 MARGIN) those that the cutoff leaves, where it does not leave all.
    `steps` (s, 1) from the first pixel of a patch to all, in the margins' count.
    No pixel is above the largest of the cells that it lies between times their `bounds` (b, 4) on both axes, by phase.
    """

    matrix: FloatArray
    weights: FloatArray
    inside: FloatArray
    kept: NDArray[np.bool_] | None
    bounds: FloatArray
    steps: IndexArray


@lru_cache(maxsize=8)
def _tables(size: int, sigma: float | None, blocks: int) -> _Tables:
    # From the last pixel of the block before to the first one behind.
    pixels = upsampling_matrix(STRIDE * (blocks + 1))[STRIDE - 1 : STRIDE * (blocks + 1) + 1, : blocks + 3]
    kept = gaussian_window(size, sigma) > 0
    return _Tables(
        np.concatenate([pixels[:-1], pixels[1:] - pixels[:-1]]),
        np.pad(gaussian_axis(size, sigma), MARGIN),
        np.pad(np.ones(size, np.float32), MARGIN),
        None if kept.all() else np.pad(kept, MARGIN),
        np.stack([_bounds(size, sigma, phase) for phase in range(STRIDE)], axis=1),
        np.arange(MARGIN, MARGIN + STRIDE * blocks + 1)[:, None],
    )


def _bounds(size: int, sigma: float | None, phase: int) -> FloatArray:
    """Factors (b,) of cells: no sample of a window that begins `phase` pixels behind a cell's middle is above them all.

    A sample with the weight g that has the parts w of cells c is at most the largest b c where g times the sum of w / b
    is at most 1. In a Gaussian at the cells themselves that is nearly so; what is missing is added to the cells at it.
    Parts change linearly between one pixel and the next, so it is enough to look at both ends.
    """
    parts = upsampling_matrix(size)[phase : phase + size + 1]
    middles = (STRIDE * np.arange(parts.shape[1]) - 1 - phase).clip(0, size - 1)
    weights = gaussian_axis(size, sigma)
    near = np.maximum(weights[middles], SMALLEST_WEIGHT)
    ends = np.stack([parts[:-1], parts[1:]])  # (2, size, b)
    lack = weights * (ends / near).sum(axis=2)
    bounds: FloatArray = near * np.where(ends > 0, lack.max(axis=0)[:, None], 0).max(axis=(0, 1))
    return bounds


def _largest(cells: FloatArray, bounds: FloatArray, blocks: int) -> tuple[IndexArray, FloatArray]:
    """The first block (2, P) of patches around the largest cells, and what no pixel beside them exceeds, (P,).

    `bounds` (b, 2, P). Block i lies between cells i and i + 1.
    """
    count, persons = len(cells), cells.shape[2]
    bounded = np.multiply(cells, bounds[:, None, 1], out=_scratch.array("bounded", cells.shape))
    bounded *= bounds[:, 0]
    along = _scratch.array("along", (2, count, persons))
    bounded.max(axis=0, out=along[0])
    bounded.max(axis=1, out=along[1])
    # An odd number of blocks has one in its middle, an even number a cell.
    peaks = along if blocks % 2 == 0 else along[:, :-1] + along[:, 1:]
    block = peaks[:, blocks // 2 :][:, : count - blocks].argmax(axis=1)
    # What lies before the patch is made of cells up to that of its first block; behind it, from its last one's second.
    beside = (np.arange(-1, count - 1)[:, None] - block[:, None]).view(np.uintp) >= blocks - 1
    along *= beside
    return block, along.reshape(2 * count, persons).max(axis=0)


def _cells_around(cells: FloatArray, block: IndexArray, blocks: int) -> FloatArray:
    """The cells (m + 3, m + 3, P) of patches that begin at `block` (2, P)."""
    count, persons = len(cells), cells.shape[2]
    along = (block[:, None] + np.arange(-1, blocks + 2)[:, None]) * (np.array([1, count])[:, None, None] * persons)
    index = along[1][:, None] + (along[0] + np.arange(persons))
    # What is beyond the cells below a window is only asked for by pixels outside of the window, which are 0.
    around = cells.reshape(-1).take(index, out=_scratch.array("around", index.shape), mode="clip")
    return around


def _pixels(cells: FloatArray, matrix: FloatArray, weights: FloatArray) -> FloatArray:
    """Pixels (s, s, P) of patches from their cells; `weights` (2, 2, s, P) of pixels and of steps, along x and y."""
    _, _, side, count = weights.shape
    columns = cells.shape[1]
    # Column by column: for one large product numpy's library wakes threads, which then spin where a graph wants to run.
    down = np.matmul(matrix, cells.transpose(1, 0, 2), out=_scratch.array("down", (columns, 2 * side, count)))
    down = down.reshape(columns, 2, side, count)
    rows = np.einsum("ckyp,kyp->ycp", down, weights[:, 1], out=_scratch.array("rows", (side, columns, count)))
    across = np.matmul(matrix, rows, out=_scratch.array("across", (side, 2 * side, count)))
    across = across.reshape(side, 2, side * count)
    flat = weights[:, 0].reshape(2, side * count)
    pixels = np.einsum("ykq,kq->yq", across, flat, out=_scratch.array("pixels", (side, side * count)))
    return pixels.reshape(side, side, count)
