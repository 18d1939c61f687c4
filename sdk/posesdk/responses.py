"""Responses of heatmap windows to attraction maps, and their two best pixels (LOGO-CAP, Xue et al., CVPR 2022, 3.4).

A response is at most the sum of its kernel times the largest pixel that it covers. So the best ones of a whole window
are known from a patch around its largest cell, as soon as the second best of the patch is above what the best pixel
outside can give; windows of which that does not hold are made and convolved as a whole.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.below import Below, cells_below
from posesdk.patches import Patches, blocks_of, cut_patches
from posesdk.scratch import Scratch
from posesdk.spec import ModelSpec
from posesdk.windows import every_keypoint, windows_above

__all__ = ["best_responses", "convolve_windows", "find_peaks"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

PIXELS_AT_ONCE = 2**20
"""Pixels of windows worked on together: so many that the cost of a call of numpy hardly matters."""
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
    indices, values = _two_largest(maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).copy())
    shape = (*maps.shape[:-2], 2)
    return indices.reshape(shape), values.reshape(shape)


def best_responses(
    poses: FloatArray, heatmaps: FloatArray, attraction: FloatArray, spec: ModelSpec
) -> tuple[IndexArray, FloatArray]:
    """The two best pixels of the reweighed windows around `poses` (N, K, 2), convolved with their attraction maps.

    Their places (2, N, K, 2), x and y in the window, and values (N, K, 2). `attraction` (N, K, n, n) at least 0; where
    it is 0 everywhere the response is 0, too.
    """
    points, channels = every_keypoint(poses)
    kernels = attraction.reshape(-1, *attraction.shape[2:])
    places, values = np.empty((2, len(points), 2), np.intp), np.empty((len(points), 2), np.float32)
    step = max(1, PIXELS_AT_ONCE // spec.adaptation.global_size**2)
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        below = cells_below(points[part], channels[part], heatmaps, spec.adaptation.global_size)
        places[:, part], values[part] = _best_of_part(below, kernels[part], spec)
    shape = (*poses.shape[:2], 2)
    return places.reshape(2, *shape), values.reshape(shape)


def _best_of_part(below: Below, kernels: FloatArray, spec: ModelSpec) -> tuple[IndexArray, FloatArray]:
    """Places (2, P, 2) and values (P, 2)."""
    adaptation = spec.adaptation
    # Three kernels wide: holds 2 of 3 best ones of trained models together with the proof.
    blocks = blocks_of(adaptation, 3 * adaptation.local_size)
    if blocks is None:
        return _best_of_windows(below, kernels, spec)
    places, values, proven = _best_of_patches(cut_patches(below, adaptation, spec.frame, blocks), kernels)
    if not proven.all():
        missed = np.flatnonzero(~proven)
        places[:, missed], values[missed] = _best_of_windows(below.take(missed), kernels[missed], spec)
    return places, values


def _best_of_windows(below: Below, kernels: FloatArray, spec: ModelSpec) -> tuple[IndexArray, FloatArray]:
    windows = windows_above(below, spec.adaptation, spec.frame)
    indices, values = find_peaks(convolve_windows(windows, kernels))
    rows, columns = np.divmod(indices, spec.adaptation.global_size)
    return np.stack([columns, rows]), values


def _best_of_patches(patches: Patches, kernels: FloatArray) -> tuple[IndexArray, FloatArray, NDArray[np.bool_]]:
    """The two best of the responses to patches, (2, P, 2) and (P, 2), and whether they are those of the windows."""
    count, size = kernels.shape[:2]
    flipped = np.ascontiguousarray(kernels.reshape(count, -1)[:, ::-1].T)  # (n n, P)
    responses = _responses(patches.pixels, flipped.reshape(size, size, count))
    tile, middle = len(responses), size // 2
    inside = patches.inside[:, middle : middle + tile]
    responses *= inside[1][:, None]
    rows = _scratch.array("rows", (count, tile, tile))
    np.multiply(responses, inside[0], out=rows.transpose(1, 2, 0))
    indices, values = _two_largest(rows.reshape(count, -1))
    # Pixels that only responses of the tile cover are hidden, for the others decide what responses elsewhere may be.
    covered = slice(size - 1, tile)
    patches.pixels[covered, covered] = -np.inf
    side = len(patches.pixels)
    ring = patches.pixels.reshape(side, side * count).max(axis=0).reshape(side, count).max(axis=0)
    most = flipped.sum(axis=0) * np.maximum(ring, patches.rest)  # no less than 0
    places = np.empty((2, count, 2), np.intp)
    np.divmod(indices, tile, out=(places[1], places[0]))
    places += (patches.first + middle)[..., None]
    proven: NDArray[np.bool_] = values[:, 1] > most * np.float32(ROUNDING)
    return places, values / np.float32(size * size), proven


def _responses(pixels: FloatArray, kernels: FloatArray) -> FloatArray:
    """Patches (s, s, P) correlated with kernels (n, n, P), (t, t, P) where they cover a kernel.

    A row of a patch with all keypoints is one long row here: kernels are repeated along it.
    """
    side, size, count = len(pixels), *kernels.shape[1:]
    tile = side - size + 1
    down, right, step = pixels.strides
    windows = np.ndarray((tile, tile * count, size, size), pixels.dtype, pixels, strides=(down, step, down, right))
    repeated = _scratch.array("repeated", (size, size, tile, count))
    repeated[...] = kernels[:, :, None]
    responses = _scratch.array("responses", (tile, tile * count))
    np.einsum("yqij,ijq->yq", windows, repeated.reshape(size, size, tile * count), out=responses)
    return responses.reshape(tile, tile, count)


def _two_largest(rows: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Indices and values (P, 2) of the two largest of each of P rows, the first of equal ones; changes them."""
    every, indices = np.arange(len(rows)), np.empty((len(rows), 2), np.intp)
    values = np.empty_like(indices, rows.dtype)
    rows.argmax(axis=1, out=indices[:, 0])
    values[:, 0] = rows[every, indices[:, 0]]
    if rows.shape[1] > 1:
        rows[every, indices[:, 0]] = -np.inf
    rows.argmax(axis=1, out=indices[:, 1])
    values[:, 1] = rows[every, indices[:, 1]]
    return indices, values
