"""Bilinear sampling of maps at free places, zeros outside."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["sample_levels", "sample_patches"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

PLACES_AT_ONCE = 128
"""Places whose taps lie in memory together: with 384 channels less than 1 MiB, as much as stays in a core's cache."""


def sample_levels(levels: Sequence[FloatArray], places: FloatArray, values: FloatArray) -> None:
    """Writes into `values` (P, sum of C) what each of L maps (h, w, C) has at its places, one map after the other.

    `places` (L, 2, P), x and y in cells of each map.
    """
    sides = np.array([(level.shape[1], level.shape[0]) for level in levels], np.float32)[..., None, None]
    cells, inside, part = _free_taps(places, sides, np.arange(2, dtype=np.float32))
    axes = np.stack([1 - part, part], axis=-1) * inside  # (L, 2, P, 2)
    weights = (axes[:, 1, :, :, None] * axes[:, 0, :, None, :]).reshape(len(levels), -1, 1, 4)
    start = 0
    for level, (xs, ys), share in zip(levels, cells, weights, strict=True):
        height, width, depth = level.shape
        rows = np.ascontiguousarray(level, np.float32).reshape(height * width, depth)
        index = (ys[:, :, None] * width + xs[:, None, :]).reshape(-1, 4)
        found = values[:, None, start : start + depth]
        # One gather and one small product a place: several times as fast as a weighted sum of four gathers.
        for first in range(0, len(index), PLACES_AT_ONCE):
            chosen = slice(first, first + PLACES_AT_ONCE)
            np.matmul(share[chosen], rows.take(index[chosen], axis=0), out=found[chosen])
        start += depth


def sample_patches(maps: FloatArray, places: FloatArray, size: int) -> FloatArray:
    """Patches (N * K, size, size) of one cell a step around `places` (2, N * K), x and y in cells, from maps[k].

    `maps` (K, h, w), zeros outside; `size` is odd.
    """
    count, height, width = maps.shape
    sides = np.array([[[width]], [[height]]], np.float32)
    steps = np.arange(size + 1, dtype=np.float32) - size // 2
    (xs, ys), (x_inside, y_inside), (x_part, y_part) = _free_taps(places, sides, steps)
    channels = np.tile(np.arange(count) * (height * width), places.shape[1] // count)
    index = (ys * width + channels[:, None])[:, :, None] + xs[:, None, :]  # (NK, size + 1, size + 1)
    cells = np.ascontiguousarray(maps, np.float32).reshape(-1).take(index)
    cells *= y_inside[:, :, None] & x_inside[:, None, :]
    rows = cells[:, :-1] + (cells[:, 1:] - cells[:, :-1]) * y_part[:, None, None]
    patches: FloatArray = rows[:, :, :-1] + (rows[:, :, 1:] - rows[:, :, :-1]) * x_part[:, None, None]
    return patches


def _free_taps(
    places: FloatArray, sides: FloatArray, steps: FloatArray
) -> tuple[IndexArray, NDArray[np.bool_], FloatArray]:
    """The cells (..., P, T) that are `steps` (T,) after the one below each of `places` (..., P), and which ones exist.

    `sides` (..., 1, 1) is how many there are. The third is the share (..., P) of the second of two neighbouring cells.
    """
    low = np.floor(places)
    taps = low[..., None] + steps
    inside = (taps >= 0) & (taps < sides)
    # Clipped before it becomes an integer, for a place may be further away than any of those.
    taps = np.minimum(np.maximum(taps, 0, out=taps), sides - 1, out=taps)
    return taps.astype(np.intp), inside, places - low
