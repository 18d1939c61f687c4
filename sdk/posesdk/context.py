"""What the `adapt` graph of LOGO-CAP sees of a person: the embedding on a mesh around every keypoint.

Keypoint expansion (LOGO-CAP, Xue et al., CVPR 2022, section 3.3): each keypoint becomes a small mesh whose step
grows with the keypoint's OKS sigma, and the embedding is sampled on it.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import CELL_CENTER
from posesdk.spec import STRIDE, Frame, ModelSpec

__all__ = ["MESH_SIGMA", "expansion_axes", "local_context"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

MESH_SIGMA = 0.025
"""OKS sigma (an eye's) at which one mesh step is one net px."""
BYTES_AT_ONCE = 2**18
"""Of cells and half-done sums that are worked on together: what stays in a core's own cache."""


def expansion_axes(keypoints: FloatArray, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """x and y (N, K, n) in net px of the keypoint expansion map of `keypoints` (N, K, 2).

    Its point [y, x] is (xs[x], ys[y]). A step is sigma / 0.025 net px: 1 for an eye, 4.28 for a hip.
    """
    mesh = _mesh(spec.skeleton.sigmas, spec.adaptation.local_size)
    return keypoints[..., :1] + mesh, keypoints[..., 1:] + mesh


def local_context(keypoints: FloatArray, embedding: FloatArray, spec: ModelSpec) -> FloatArray:
    """Input of the `adapt` graph, (N, K*d, n, n) float32: channel k*d + c is embedding c on the mesh of keypoint k.

    `keypoints` (N, K, 2) in net px, `embedding` (h, w, d) of the image that is not mirrored. Frame "published" reads
    cell x/4, frame "consistent" (x - 1.5)/4.
    """
    height, width, depth = embedding.shape
    persons, count, size = len(keypoints), spec.keypoint_count, spec.adaptation.local_size
    cells, weights = _below_mesh(keypoints, (width, height), spec)
    index = cells[1, :, :, None] * width + cells[0, :, None, :]  # (NK, b, b)
    rows = np.ascontiguousarray(embedding, np.float32).reshape(height * width, depth)
    context = np.empty((persons * count, depth * size, size), np.float32)
    side = index.shape[2]
    step = max(1, BYTES_AT_ONCE // (rows.itemsize * depth * side * (side + size)))
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        block = rows.take(index[part], axis=0).reshape(-1, side, side * depth)
        # Down first, then across: each product leaves the layout that the next one, and the graph, wants.
        columns = np.matmul(block.transpose(0, 2, 1), weights[1, part])  # (p, b*d, n)
        columns = columns.reshape(-1, side, depth * size).transpose(0, 2, 1)  # (p, d*n, b)
        np.matmul(columns, weights[0, part], out=context[part])
    return context.reshape(persons, count * depth, size, size)


def _below_mesh(keypoints: FloatArray, sides: tuple[int, int], spec: ModelSpec) -> tuple[IndexArray, FloatArray]:
    """Cells (2, NK, b) below each mesh, of maps with `sides` cells along x and y, and weights (2, NK, b, n) of theirs.

    The weight of a cell in a sample is 1 less their distance, which for all but two cells is none.
    """
    size = spec.adaptation.local_size
    mesh = _mesh(spec.skeleton.sigmas, size)
    # In an order in which whatever follows is one loop over all of it.
    places = (np.ascontiguousarray(keypoints.transpose(2, 0, 1))[..., None] + mesh).reshape(2, -1, size)
    if spec.frame == "consistent":
        places -= np.float32(CELL_CENTER)
    places /= np.float32(STRIDE)
    last = np.array(sides, np.float32)[:, None, None] - 1
    ramp = _ramp(places, last, spec.frame)
    np.minimum(np.maximum(places, 0, out=places), last, out=places)
    cells = np.floor(places[..., :1]) + np.arange(_span(mesh), dtype=np.float32)
    weights = cells[..., None] - places[:, :, None, :]
    np.subtract(1, np.abs(weights, out=weights), out=weights)
    np.maximum(weights, 0, out=weights)
    if ramp is not None:
        weights *= ramp[:, :, None, :]
    # A cell beyond the last one has no weight.
    return np.minimum(cells, last).astype(np.intp), weights


def _ramp(places: FloatArray, last: FloatArray, frame: Frame) -> FloatArray | None:
    """A factor of each sample (2, NK, n), or none: the published sampler's fault.

    Between the last cell and one step beyond it, the value falls to 0 and ramps up again: both taps are the last cell,
    and only the second has a weight.
    """
    if frame == "consistent":
        return None
    beyond = places - last
    # Of a map that is one cell wide, the last cell is the first one, too.
    return np.where((beyond >= np.where(last > 0, 0, -1)) & (beyond < 1), np.abs(beyond), np.float32(1))


@lru_cache(maxsize=8)
def _mesh(sigmas: tuple[float, ...], size: int) -> FloatArray:
    """(K, n) net px from each keypoint."""
    steps = np.arange(-(size // 2), size // 2 + 1, dtype=np.float32)
    mesh = steps * (np.asarray(sigmas, np.float32) / np.float32(MESH_SIGMA))[:, None]
    mesh.flags.writeable = False
    return mesh


def _span(mesh: FloatArray) -> int:
    """Most cells b that a mesh lies above along an axis: one on either side of the whole ones between its ends."""
    return math.ceil(float((mesh[:, -1] - mesh[:, 0]).max()) / STRIDE) + 2
