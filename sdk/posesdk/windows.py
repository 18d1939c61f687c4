"""Windows of heatmaps around keypoints, at net resolution (LOGO-CAP, Xue et al., CVPR 2022, section 3.4).

Upsampling, sampling between the pixels and reweighing work on each axis alone, so together they are one small matrix an
axis, and only the cells below a window are touched.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.below import Below, cells_below, upsampling_matrix
from posesdk.scratch import Scratch
from posesdk.spec import STRIDE, AdaptationSpec, Frame

__all__ = [
    "GAUSSIAN_CUTOFF",
    "every_keypoint",
    "gaussian_axis",
    "gaussian_window",
    "reweighed_windows",
    "reweighing_sigma",
    "reweighing_window",
    "sample_windows",
    "windows_above",
]

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
    below = cells_below(*every_keypoint(keypoints), heatmaps, size)
    return _windows(below, size, None, frame).reshape(*keypoints.shape[:2], size, size)


def reweighed_windows(
    keypoints: FloatArray, heatmaps: FloatArray, adaptation: AdaptationSpec, frame: Frame
) -> FloatArray:
    """`sample_windows` times `reweighing_window`, (N, K, a, a)."""
    size = adaptation.global_size
    below = cells_below(*every_keypoint(keypoints), heatmaps, size)
    return windows_above(below, adaptation, frame).reshape(*keypoints.shape[:2], size, size)


def windows_above(below: Below, adaptation: AdaptationSpec, frame: Frame) -> FloatArray:
    """The reweighed windows (P, a, a) that have these cells below them."""
    size, sigma = adaptation.global_size, reweighing_sigma(adaptation)
    windows = _windows(below, size, sigma, frame)
    kept = gaussian_window(size, sigma) > 0
    if not kept.all():  # the one part of it that is not the product of two axes
        windows *= kept
    return windows


def every_keypoint(keypoints: FloatArray) -> tuple[FloatArray, IndexArray]:
    """The points (NK, 2) of keypoints (N, K, 2), person by person, and the maps (NK,) that they are read from."""
    persons, count = keypoints.shape[:2]
    return keypoints.reshape(persons * count, 2), _channels(persons, count)


@lru_cache(maxsize=64)
def _channels(persons: int, count: int) -> IndexArray:
    channels = np.arange(persons * count) % count
    channels.flags.writeable = False
    return channels


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


@lru_cache(maxsize=8)
def _axis(size: int, sigma: float | None) -> tuple[FloatArray, FloatArray]:
    """From the b cells below a window to its samples along an axis: upsampling, sampling between pixels, and weights.

    Two parts (4, size, b), by the phase of the first sample: the matrix is the first one and, times the fraction of a
    pixel, the second one.
    """
    upsampling, weights = upsampling_matrix(size), gaussian_axis(size, sigma)[:, None]
    pixels = np.stack([upsampling[phase : phase + size + 1] for phase in range(STRIDE)])
    return pixels[:, :-1] * weights, (pixels[:, 1:] - pixels[:, :-1]) * weights


def _windows(below: Below, size: int, sigma: float | None, frame: Frame) -> FloatArray:
    """(P, size, size)."""
    low, step = _axis(size, sigma)
    shape = (*below.phase.shape, *low.shape[1:])
    matrices = step.take(below.phase, axis=0, out=_scratch.array("matrices", shape), mode="clip")
    matrices *= below.fraction[..., None, None]
    matrices += low.take(below.phase, axis=0, out=_scratch.array("low", shape), mode="clip")
    if frame == "published":
        matrices *= below.border_factor(np.arange(size)[:, None]).transpose(0, 2, 1)[..., None]
    cells = np.ascontiguousarray(below.cells.transpose(2, 0, 1))
    down = np.matmul(matrices[1], cells, out=_scratch.array("down", shape[1:]))
    windows: FloatArray = np.matmul(down, matrices[0].transpose(0, 2, 1))
    return windows
