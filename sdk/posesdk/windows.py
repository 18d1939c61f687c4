"""Windows of heatmaps around keypoints, at net resolution (LOGO-CAP, Xue et al., CVPR 2022, section 3.4).

Upsampling, sampling between the pixels and reweighing work on each axis alone, so together they are one small matrix an
axis, and only the cells below a window are touched.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.scratch import Scratch
from posesdk.spec import STRIDE, AdaptationSpec, Frame

__all__ = ["GAUSSIAN_CUTOFF", "reweighed_windows", "reweighing_window", "sample_windows"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

GAUSSIAN_CUTOFF = 1e-4
"""Weights of the reweighing Gaussian below this are 0, as published."""

_scratch = Scratch()


def sample_windows(keypoints: FloatArray, heatmaps: FloatArray, size: int, frame: Frame) -> FloatArray:
    """Windows (N, K, size, size) of 1 net px a step around `keypoints` (N, K, 2), from keypoint k's map, heatmaps[k].

    `heatmaps` (K or more, h, w) in cells. Equal to bilinear sampling of the maps upsampled by `posesdk.decode.upsample`
    at their pixel indices.
    """
    return _windows(keypoints, heatmaps, _axis(size, None, 0), frame)


def reweighed_windows(
    keypoints: FloatArray, heatmaps: FloatArray, adaptation: AdaptationSpec, frame: Frame, out: FloatArray | None = None
) -> FloatArray:
    """`sample_windows` times `reweighing_window`, (N, K, a, a).

    Written into `out` (N, K, a + 2 m, a + 2 m) where that is given, with a margin of m zeros on every side.
    """
    size, sigma = adaptation.global_size, _sigma(adaptation)
    margin = 0 if out is None else (out.shape[-1] - size) // 2
    windows = _windows(keypoints, heatmaps, _axis(size, sigma, margin), frame, out)
    cut = _gaussian(size, sigma) > 0
    if not cut.all():  # the one part of it that is not the product of two axes
        windows *= np.pad(cut, margin)
    return windows


def reweighing_window(adaptation: AdaptationSpec) -> FloatArray:
    """Gaussian (a, a) around the window's center; ones without `reweigh_sigma`, and with prior "kam"."""
    return _gaussian(adaptation.global_size, _sigma(adaptation))


def _sigma(adaptation: AdaptationSpec) -> float | None:
    return None if adaptation.prior == "kam" else adaptation.reweigh_sigma


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float | None) -> FloatArray:
    squares = np.arange(-(size // 2), size // 2 + 1, dtype=np.float32) ** 2
    exponent = np.float32(0) if sigma is None else (squares[:, None] + squares) / np.float32(-2 * sigma**2)
    gaussian = np.exp(np.broadcast_to(exponent, (size, size))).astype(np.float32)
    gaussian[gaussian < GAUSSIAN_CUTOFF] = 0
    gaussian.flags.writeable = False
    return gaussian


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """From the b cells below a window to its samples along an axis, by the phase of the first sample's pixel in a cell.

    `low` and `step` (4, size + 2 margin, b): the matrix is low + fraction * step, where the first sample lies a
    `fraction` of a pixel beyond a pixel. Rows of the margin are 0.
    """

    size: int
    margin: int
    low: FloatArray
    step: FloatArray


@lru_cache(maxsize=8)
def _axis(size: int, sigma: float | None, margin: int) -> _Axis:
    """Upsampling by 4, sampling between two pixels, and the weights of the Gaussian of this sigma along one axis."""
    upsampling = _upsampling_matrix(size)
    squares = np.arange(-(size // 2), size - size // 2, dtype=np.float32)[:, None] ** 2
    weights = np.float32(1) if sigma is None else np.exp(squares / np.float32(-2 * sigma**2))
    low = np.zeros((STRIDE, size + 2 * margin, upsampling.shape[1]), np.float32)
    step = np.zeros_like(low)
    inner = slice(margin, margin + size)
    for phase in range(STRIDE):
        pixels = upsampling[phase : phase + size + 1]
        low[phase, inner] = pixels[:-1] * weights
        step[phase, inner] = (pixels[1:] - pixels[:-1]) * weights
    return _Axis(size, margin, low, step)


def _windows(
    keypoints: FloatArray, heatmaps: FloatArray, axis: _Axis, frame: Frame, out: FloatArray | None = None
) -> FloatArray:
    """(N, K, s, s), s = size + 2 margin."""
    persons, count = keypoints.shape[:2]
    height, width = heatmaps.shape[1:]
    cells, matrices = _below(keypoints.reshape(-1, 2).T, np.array([[width], [height]]), axis, frame)
    flat, (map_step, row_step, column_step) = _flattened(heatmaps)
    rows = cells[1] * row_step + (np.arange(persons * count) % count * map_step)[:, None]
    shape = (*rows.shape, rows.shape[1])  # (N K, b, b)
    index = np.add(rows[:, :, None], (cells[0] * column_step)[:, None, :], out=_scratch.array("index", shape, np.intp))
    patches = flat.take(index, out=_scratch.array("patches", shape), mode="clip")  # else it is buffered
    below = np.matmul(matrices[1], patches, out=_scratch.array("below", (len(rows), *matrices.shape[2:])))
    side = matrices.shape[2]
    windows = np.empty((persons, count, side, side), np.float32) if out is None else out
    np.matmul(below, matrices[0].transpose(0, 2, 1), out=windows.reshape(persons * count, side, side))
    return windows


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


def _below(centers: FloatArray, cells: IndexArray, axis: _Axis, frame: Frame) -> tuple[IndexArray, FloatArray]:
    """Cells (2, P, b) below each of P windows along x and y, and the matrices (2, P, s, b) from them to the samples.

    `centers` (2, P) in net px, `cells` (2, 1) how many there are along each axis.
    """
    first = centers - np.float32(axis.size // 2)
    # A window that lies wholly outside sees the border cell alone, wherever it is.
    start = np.floor(first).clip(-axis.size - STRIDE, cells * STRIDE + STRIDE)
    fraction = (first - start).clip(0, 1).astype(np.float32)
    # Pixel p lies above cell floor((p - 1.5)/4), which for whole p is floor((p - 2)/4).
    base, phase = np.divmod(start.astype(np.intp) - 2, STRIDE)
    shape = (*phase.shape, *axis.low.shape[1:])
    matrices = axis.step.take(phase, axis=0, out=_scratch.array("matrices", shape), mode="clip")
    matrices *= fraction[..., None, None]
    matrices += axis.low.take(phase, axis=0, out=_scratch.array("low", shape), mode="clip")
    if frame == "published":
        beyond = first[..., None] + np.arange(axis.size, dtype=np.float32) - (cells * STRIDE - 1)[..., None]
        factor = np.where((beyond >= 0) & (beyond < 1), beyond, 1).astype(np.float32)
        matrices[:, :, axis.margin : axis.margin + axis.size] *= factor[..., None]
    return (base[..., None] + np.arange(axis.low.shape[2])).clip(0, cells[..., None] - 1), matrices


@lru_cache(maxsize=8)
def _upsampling_matrix(size: int) -> FloatArray:
    """(size + 4, b): from b cells to the pixels that begin 0.5 px after the middle of the first cell, 4 px a cell."""
    pixels = np.arange(size + STRIDE)
    cell, phase = np.divmod(pixels, STRIDE)
    weight = (phase + 0.5) / STRIDE
    matrix = np.zeros((len(pixels), cell[-1] + 2), np.float32)
    matrix[pixels, cell] = 1 - weight
    matrix[pixels, cell + 1] = weight
    return matrix
