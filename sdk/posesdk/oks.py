"""Object keypoint similarity (OKS), as COCO defines it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["oks"]


def oks(
    poses: ArrayLike, targets: ArrayLike, areas: ArrayLike, sigmas: ArrayLike, boxes: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Similarity (N, G) in 0..1 of `poses` (N, K, 2) to annotated persons `targets` (G, K, 3: x, y, visibility).

    `areas` (G,) in square px of the same frame, `sigmas` (K,) per-keypoint constants. Only labelled keypoints
    (visibility above 0) count. A person without any is compared by its box: `boxes` (G, 4) x, y, width, height, grown
    by its own size on every side; keypoints outside lose by their distance to it. Raises ValueError where such a box
    is needed and missing. Equal to pycocotools' `COCOeval.computeOks`.
    """
    points = np.asarray(poses, np.float64)[:, None, :, :2]  # (N, 1, K, 2)
    annotated = np.asarray(targets, np.float64)
    labelled = annotated[..., 2] > 0  # (G, K)
    counts = labelled.sum(axis=-1)
    difference = points - annotated[None, ..., :2]  # (N, G, K, 2)
    if not counts.all():
        if boxes is None:
            raise ValueError(
                f"OKS: {int((counts == 0).sum())} of {len(counts)} persons have no labelled keypoint; pass their boxes"
            )
        unlabelled = counts == 0
        difference[:, unlabelled] = _outside(points, np.asarray(boxes, np.float64)[unlabelled])
        labelled = labelled | unlabelled[:, None]
    variances = (2 * np.asarray(sigmas, np.float64)) ** 2
    scale = np.asarray(areas, np.float64)[:, None] + np.spacing(1)
    error = (difference**2).sum(axis=-1) / variances / scale / 2  # (N, G, K)
    similarity: NDArray[np.float64] = (np.exp(-error) * labelled).sum(axis=-1) / labelled.sum(axis=-1)
    return similarity


def _outside(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance per axis (N, G, K, 2) from points (N, 1, K, 2) to boxes (G, 4 xywh) of three times the size."""
    corner, size = boxes[None, :, None, :2], boxes[None, :, None, 2:]
    low, high = corner - size, corner + 2 * size
    return np.maximum(0, low - points) + np.maximum(0, points - high)
