"""Responses of heatmap windows to attraction maps, and their two best pixels (LOGO-CAP, Xue et al., CVPR 2022, 3.4).

A response is at most the sum of its kernel times the largest pixel that it covers. So the response of a whole window is
known from a tile around its largest pixel, as soon as the second best of the tile is above what the best pixel outside
can give; windows of which that does not hold are convolved as a whole.
"""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from posesdk.scratch import Scratch
from posesdk.spec import ModelSpec
from posesdk.windows import reweighed_windows

__all__ = ["best_responses", "convolve_windows", "find_peaks"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

BATCH_PIXELS = 2**20
"""Window pixels worked on at once, 4 MiB: so many that the cost of a call of numpy hardly matters."""
ROUNDING = 1.0001
"""More than the sums of a kernel's float32 products can differ by."""

_scratch = Scratch()


def convolve_windows(windows: FloatArray, attraction: FloatArray) -> FloatArray:
    """Each window (..., a, a) convolved with its own attraction map (..., n, n) over n^2; zeros outside."""
    size = attraction.shape[-1]
    # filter2D correlates, and LOGO-CAP correlates with the flipped map.
    kernels = attraction.reshape(-1, size, size)[:, ::-1, ::-1] / np.float32(size * size)
    result = np.empty_like(windows)
    maps = windows.reshape(-1, *windows.shape[-2:])
    for source, kernel, target in zip(maps, kernels, result.reshape(maps.shape), strict=True):
        cv2.filter2D(source, cv2.CV_32F, kernel, dst=target, borderType=cv2.BORDER_CONSTANT)
    return result


def find_peaks(maps: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Flat indices and values (..., 2) of the two largest pixels of each map (..., a, a), the largest first."""
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).copy()
    indices, values = _two_largest(flat.T)
    shape = (*maps.shape[:-2], 2)
    return indices.T.reshape(shape), values.T.reshape(shape)


def best_responses(
    poses: FloatArray, heatmaps: FloatArray, attraction: FloatArray, spec: ModelSpec
) -> tuple[IndexArray, FloatArray]:
    """`find_peaks` (N, K, 2) of the reweighed windows around `poses` (N, K, 2), convolved with their attraction maps.

    `attraction` (N, K, n, n) at least 0. Where it is 0 everywhere the response is 0, too, and its place means nothing.
    """
    shape = (*poses.shape[:2], 2)
    indices, values = np.empty(shape, np.intp), np.empty(shape, np.float32)
    side = spec.adaptation.global_size + spec.adaptation.local_size - 1
    step = max(1, BATCH_PIXELS // (poses.shape[1] * side**2))
    for start in range(0, len(poses), step):
        part = slice(start, start + step)
        indices[part], values[part] = _best_of_part(poses[part], heatmaps, attraction[part], spec)
    return indices, values


def _best_of_part(
    poses: FloatArray, heatmaps: FloatArray, attraction: FloatArray, spec: ModelSpec
) -> tuple[IndexArray, FloatArray]:
    adaptation, size = spec.adaptation, spec.adaptation.local_size
    tile = 2 * size + 4  # of responses; holds 9 of 10 best ones of trained models together with the proof
    if tile >= adaptation.global_size:
        windows = reweighed_windows(poses, heatmaps, adaptation, spec.frame)
        return find_peaks(convolve_windows(windows, attraction))
    side = adaptation.global_size + size - 1
    windows = _scratch.array("windows", (*poses.shape[:2], side, side))
    reweighed_windows(poses, heatmaps, adaptation, spec.frame, out=windows)
    flat = windows.reshape(-1, side, side)
    kernels = attraction.reshape(-1, size, size)
    indices, values, proven = _best_of_tiles(flat, kernels, tile)
    missed = np.flatnonzero(~proven)
    if len(missed):
        inner = slice(size // 2, size // 2 + adaptation.global_size)
        indices[missed], values[missed] = find_peaks(convolve_windows(flat[missed, inner, inner], kernels[missed]))
    return indices.reshape(*poses.shape[:2], 2), values.reshape(*poses.shape[:2], 2)


def _best_of_tiles(
    windows: FloatArray, kernels: FloatArray, tile: int
) -> tuple[IndexArray, FloatArray, NDArray[np.bool_]]:
    """The two best (P, 2) of the responses in a tile around the largest pixel of each window, and whether they are all.

    `windows` (P, s, s) have a margin of n//2 zeros, indices are those of windows without it.
    """
    count, side, size = len(windows), windows.shape[1], kernels.shape[1]
    every, inner = np.arange(count), side - size + 1
    y, x = np.divmod(windows.reshape(count, -1).argmax(axis=1), side)
    middle = size // 2 + tile // 2
    top, left = (y - middle).clip(0, inner - tile), (x - middle).clip(0, inner - tile)
    reach = tile + size - 1
    pixels = sliding_window_view(windows, (reach, reach), axis=(1, 2))[every, top, left]
    responses = _responses(pixels, kernels)
    indices, values = _two_largest(responses.reshape(tile * tile, count))
    rows, columns = np.divmod(indices, tile)
    places = (rows + top) * inner + columns + left
    # Pixels that only responses of the tile cover; they are hidden while the largest of the others is looked for.
    covered = (every, top + size - 1, left + size - 1)
    view = sliding_window_view(windows, (tile - size + 1,) * 2, axis=(1, 2), writeable=True)
    hidden = view[covered]
    view[covered] = -np.inf
    outside = windows.reshape(count, -1).max(axis=1)
    view[covered] = hidden
    sums = kernels.sum(axis=(1, 2))
    proven = (values[1] > sums * outside * np.float32(ROUNDING)) & (values[1] > 0) | (sums == 0)
    return places.T, values.T / np.float32(size * size), proven


def _responses(pixels: FloatArray, kernels: FloatArray) -> FloatArray:
    """Patches (P, t + n - 1, t + n - 1) convolved with kernels (P, n, n): (t, t, P), all patches in one inner loop."""
    size = kernels.shape[1]
    inner = _scratch.array("pixels", (*pixels.shape[1:], len(pixels)))
    inner[...] = pixels.transpose(1, 2, 0)
    windows = sliding_window_view(inner, (size, size), axis=(0, 1))
    flipped = np.ascontiguousarray(kernels[:, ::-1, ::-1].transpose(1, 2, 0))
    responses = _scratch.array("responses", windows.shape[:3])
    return np.einsum("yxpij,ijp->yxp", windows, flipped, out=responses)


def _two_largest(columns: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Row indices and values (2, P) of the two largest of each of P columns, the first of equal ones; changes them."""
    every = np.arange(columns.shape[1])
    best = columns.argmax(axis=0)
    best_value = columns[best, every]
    if len(columns) > 1:
        columns[best, every] = -np.inf
    second = columns.argmax(axis=0)
    return np.stack([best, second]), np.stack([best_value, columns[second, every]])
