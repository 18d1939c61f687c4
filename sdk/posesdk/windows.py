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

__all__ = [
    "GAUSSIAN_CUTOFF",
    "Places",
    "border_factor",
    "flatten_maps",
    "gaussian_axis",
    "gaussian_window",
    "reweighed_windows",
    "reweighed_windows_at",
    "reweighing_sigma",
    "reweighing_window",
    "sample_windows",
    "upsampling_matrix",
]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

GAUSSIAN_CUTOFF = 1e-4
"""Weights of the reweighing Gaussian below this are 0, as published."""

_scratch = Scratch()


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where windows are: around `points` (P, 2) in net px, in the maps `channels` (P,)."""

    points: FloatArray
    channels: IndexArray

    @classmethod
    def of_keypoints(cls, keypoints: FloatArray) -> "Places":
        """Those of keypoints (N, K, 2), person by person; keypoint k's map is the k-th."""
        persons, count = keypoints.shape[:2]
        return cls(keypoints.reshape(persons * count, 2), np.arange(persons * count) % count)

    def take(self, chosen: IndexArray) -> "Places":
        """Those with these indices."""
        return Places(self.points[chosen], self.channels[chosen])


def sample_windows(keypoints: FloatArray, heatmaps: FloatArray, size: int, frame: Frame) -> FloatArray:
    """Windows (N, K, size, size) of 1 net px a step around `keypoints` (N, K, 2), from keypoint k's map, heatmaps[k].

    `heatmaps` (K or more, h, w) in cells. Equal to bilinear sampling of the maps upsampled by `posesdk.decode.upsample`
    at their pixel indices.
    """
    windows = _windows(Places.of_keypoints(keypoints), heatmaps, _axis(size, None), frame)
    return windows.reshape(*keypoints.shape[:2], size, size)


def reweighed_windows(
    keypoints: FloatArray, heatmaps: FloatArray, adaptation: AdaptationSpec, frame: Frame
) -> FloatArray:
    """`sample_windows` times `reweighing_window`, (N, K, a, a)."""
    windows = reweighed_windows_at(Places.of_keypoints(keypoints), heatmaps, adaptation, frame)
    return windows.reshape(*keypoints.shape[:2], *windows.shape[1:])


def reweighed_windows_at(places: Places, heatmaps: FloatArray, adaptation: AdaptationSpec, frame: Frame) -> FloatArray:
    """As `reweighed_windows`, (P, a, a)."""
    size, sigma = adaptation.global_size, reweighing_sigma(adaptation)
    windows = _windows(places, heatmaps, _axis(size, sigma), frame)
    cut = gaussian_window(size, sigma) > 0
    if not cut.all():  # the one part of it that is not the product of two axes
        windows *= cut
    return windows


def reweighing_window(adaptation: AdaptationSpec) -> FloatArray:
    """Gaussian (a, a) around the window's center; ones without `reweigh_sigma`, and with prior "kam"."""
    return gaussian_window(adaptation.global_size, reweighing_sigma(adaptation))


def reweighing_sigma(adaptation: AdaptationSpec) -> float | None:
    """Of the Gaussian that windows are weighed by, in net px; none where all weights are 1."""
    return None if adaptation.prior == "kam" else adaptation.reweigh_sigma


@lru_cache(maxsize=8)
def gaussian_window(size: int, sigma: float | None) -> FloatArray:
    """Weights (size, size) of a Gaussian around the middle; ones without `sigma`."""
    squares = np.arange(-(size // 2), size // 2 + 1, dtype=np.float32) ** 2
    exponent = np.float32(0) if sigma is None else (squares[:, None] + squares) / np.float32(-2 * sigma**2)
    gaussian = np.exp(np.broadcast_to(exponent, (size, size))).astype(np.float32)
    gaussian[gaussian < GAUSSIAN_CUTOFF] = 0
    gaussian.flags.writeable = False
    return gaussian


def gaussian_axis(size: int, sigma: float | None) -> FloatArray:
    """The Gaussian (size,) of which `reweighing_window` is the product along both axes, but for what is cut off."""
    squares = np.arange(-(size // 2), size - size // 2, dtype=np.float32) ** 2
    return np.ones_like(squares) if sigma is None else np.exp(squares / np.float32(-2 * sigma**2))


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """From the b cells below a window to its samples along an axis, by the phase of the first sample's pixel in a cell.

    `low` and `step` (4, size, b): the matrix is low + fraction * step, where the first sample lies a `fraction` of a
    pixel beyond a pixel.
    """

    size: int
    low: FloatArray
    step: FloatArray


@lru_cache(maxsize=8)
def _axis(size: int, sigma: float | None) -> _Axis:
    """Upsampling by 4, sampling between two pixels, and the weights of the Gaussian of this sigma along one axis."""
    upsampling, weights = upsampling_matrix(size), gaussian_axis(size, sigma)[:, None]
    pixels = np.stack([upsampling[phase : phase + size + 1] for phase in range(STRIDE)])
    return _Axis(size, pixels[:, :-1] * weights, (pixels[:, 1:] - pixels[:, :-1]) * weights)


def _windows(places: Places, heatmaps: FloatArray, axis: _Axis, frame: Frame) -> FloatArray:
    """(P, size, size)."""
    height, width = heatmaps.shape[1:]
    cells, matrices = _below(places.points.T, np.array([[width], [height]]), axis, frame)
    flat, (map_step, row_step, column_step) = flatten_maps(heatmaps)
    rows = cells[1] * row_step + (places.channels * map_step)[:, None]
    shape = (*rows.shape, rows.shape[1])  # (P, b, b)
    index = np.add(rows[:, :, None], (cells[0] * column_step)[:, None, :], out=_scratch.array("index", shape, np.intp))
    patches = flat.take(index, out=_scratch.array("patches", shape), mode="clip")  # else it is buffered
    below = np.matmul(matrices[1], patches, out=_scratch.array("below", (len(rows), *matrices.shape[2:])))
    return np.matmul(below, matrices[0].transpose(0, 2, 1))


def flatten_maps(maps: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
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
        samples = first[..., None] + np.arange(axis.size, dtype=np.float32)
        matrices *= border_factor(samples, cells[..., None])[..., None]
    return (base[..., None] + np.arange(axis.low.shape[2])).clip(0, cells[..., None] - 1), matrices


def border_factor(samples: FloatArray, cells: IndexArray) -> FloatArray:
    """A factor of samples at net px (2, ...), of maps with `cells` (2, ...) along x and y: as published.

    The published sampler has a fault: beyond the last pixel the value falls to 0 and ramps up again.
    """
    beyond = samples - (cells * STRIDE - 1)
    return np.where((beyond >= 0) & (beyond < 1), beyond, 1).astype(np.float32)


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
