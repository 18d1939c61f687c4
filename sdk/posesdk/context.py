"""What the `adapt` graph of LOGO-CAP sees of a person: the embedding on a mesh around every keypoint.

Keypoint expansion (LOGO-CAP, Xue et al., CVPR 2022, section 3.3): each keypoint becomes a small mesh whose step
grows with the keypoint's OKS sigma, and the embedding is sampled on it.
"""

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import CELL_CENTER
from posesdk.sampling import bilinear_taps
from posesdk.spec import STRIDE, ModelSpec

__all__ = ["MESH_SIGMA", "expansion_axes", "local_context"]

FloatArray = NDArray[np.float32]

MESH_SIGMA = 0.025
"""OKS sigma (an eye's) at which one mesh step is one net px."""


def expansion_axes(keypoints: FloatArray, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """x and y (N, K, n) in net px of the keypoint expansion map of `keypoints` (N, K, 2).

    Its point [y, x] is (xs[x], ys[y]). A step is sigma / 0.025 net px: 1 for an eye, 4.28 for a hip.
    """
    radius = spec.adaptation.local_size // 2
    steps = np.arange(-radius, radius + 1, dtype=np.float32)
    mesh = steps * (spec.skeleton.sigma_array / np.float32(MESH_SIGMA))[:, None]  # (K, n)
    return keypoints[..., :1] + mesh, keypoints[..., 1:] + mesh


def local_context(keypoints: FloatArray, embedding: FloatArray, spec: ModelSpec) -> FloatArray:
    """Input of the `adapt` graph, (N, K*d, n, n) float32: channel k*d + c is embedding c on the mesh of keypoint k.

    `keypoints` (N, K, 2) in net px, `embedding` (h, w, d) of the image that is not mirrored. Frame "published" reads
    cell x/4, frame "consistent" (x - 1.5)/4.
    """
    height, width, depth = embedding.shape
    count, size = spec.keypoint_count, spec.adaptation.local_size
    origin = np.float32(0 if spec.frame == "published" else CELL_CENTER)
    xs, ys = ((axis - origin) / np.float32(STRIDE) for axis in expansion_axes(keypoints, spec))
    rows = np.ascontiguousarray(embedding, np.float32).reshape(height * width, depth)
    context = np.empty((len(keypoints), count, depth, size, size), np.float32)
    for person, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x_taps, y_taps = bilinear_taps(x, width, spec.frame), bilinear_taps(y, height, spec.frame)
        total = np.zeros((count, size, size, depth), np.float32)
        for y_cell, y_weight in y_taps:
            for x_cell, x_weight in x_taps:
                cells = rows[y_cell[:, :, None] * width + x_cell[:, None, :]]
                total += cells * (y_weight[:, :, None] * x_weight[:, None, :])[..., None]
        context[person] = total.transpose(0, 3, 1, 2)
    return context.reshape(len(keypoints), count * depth, size, size)
