"""Bilinear sampling of maps.

The points of a mesh form a lattice, so bilinear sampling is done one axis at a time, with the border rules of both
coordinate frames. `sample_cells` and `sample_patches` sample at free places, with zeros outside.
"""

import numpy as np
from numpy.typing import NDArray

from posesdk.spec import Frame

__all__ = ["bilinear_taps", "sample_cells", "sample_patches"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

PLACES_AT_ONCE = 128
"""Places whose taps lie in memory together: with 384 channels less than 1 MiB, as much as stays in a core's cache."""


def bilinear_taps(positions: FloatArray, size: int, frame: Frame) -> tuple[tuple[IndexArray, FloatArray], ...]:
    """The two (index, weight) of bilinear sampling along an axis of `size` samples, replicated at its ends.

    Frame "published" keeps the published sampler's fault: between the last sample and one step beyond it, both taps are
    the last sample and only the second has a weight, so the value falls to 0 and ramps up again.
    """
    low = np.floor(positions).clip(0, size - 1)
    high = np.minimum(low + 1, size - 1)
    high_weight = (positions - low).clip(0, 1)
    low_weight = (high - positions).clip(0, 1) if frame == "published" else 1 - high_weight
    return (low.astype(np.intp), low_weight), (high.astype(np.intp), high_weight)


def sample_cells(maps: FloatArray, places: FloatArray, values: FloatArray) -> None:
    """Writes the values (P, C) of maps (h, w, C) at `places` (P, 2), x and y in cells; zeros outside."""
    height, width, depth = maps.shape
    x_cells, x_inside, x_part = _free_taps(places[:, 0], width, 1)
    y_cells, y_inside, y_part = _free_taps(places[:, 1], height, 1)
    index = y_cells[:, :, None] * width + x_cells[:, None, :]  # (P, 2, 2)
    x_weights = np.stack([1 - x_part, x_part], axis=-1) * x_inside
    y_weights = np.stack([1 - y_part, y_part], axis=-1) * y_inside
    weights = y_weights[:, :, None] * x_weights[:, None, :]
    rows = np.ascontiguousarray(maps, np.float32).reshape(height * width, depth)
    # One gather and one small product a place: several times as fast as a weighted sum of four gathers.
    index, weights = index.reshape(-1, 4), weights.reshape(-1, 1, 4)
    for start in range(0, len(places), PLACES_AT_ONCE):
        part = slice(start, start + PLACES_AT_ONCE)
        taps = rows.take(index[part], axis=0)  # (p, 4, C)
        np.matmul(weights[part], taps, out=values[part, None])


def sample_patches(maps: FloatArray, places: FloatArray, size: int) -> FloatArray:
    """Patches (N, K, size, size) of one cell a step around `places` (N, K, 2), x and y in cells, from maps[k].

    `maps` (K or more, h, w), zeros outside; `size` is odd.
    """
    persons, count = places.shape[:2]
    flat = places.reshape(persons * count, 2)
    x_cells, x_inside, x_part = _free_taps(flat[:, 0], maps.shape[2], size)
    y_cells, y_inside, y_part = _free_taps(flat[:, 1], maps.shape[1], size)
    channels = np.tile(np.arange(count), persons)
    cells = maps[channels[:, None, None], y_cells[:, :, None], x_cells[:, None, :]]  # (NK, size + 1, size + 1)
    cells = cells * (y_inside[:, :, None] & x_inside[:, None, :])
    rows = cells[:, :-1] + (cells[:, 1:] - cells[:, :-1]) * y_part[:, None, None]
    patches: FloatArray = rows[:, :, :-1] + (rows[:, :, 1:] - rows[:, :, :-1]) * x_part[:, None, None]
    return patches.reshape(persons, count, size, size)


def _free_taps(positions: FloatArray, cells: int, size: int) -> tuple[IndexArray, NDArray[np.bool_], FloatArray]:
    """The size + 1 cells (P, size + 1) below `size` samples around each position along an axis, and which ones exist.

    The third is the share (P,) of the second of any two neighbouring cells.
    """
    low = np.floor(positions)
    # However far outside: no tap exists, and the index stays within the range of integers.
    first = low.clip(-size - 1, cells + size).astype(np.intp) - size // 2
    taps = first[:, None] + np.arange(size + 1)
    return taps.clip(0, cells - 1), (taps >= 0) & (taps < cells), positions - low
