"""How alike the poses of an image are, and which of them are one person's.

DAC (Cheng et al., "Bottom-Up 2D Pose Estimation via Dual Anatomical Centers for Small-Scale Persons", 2022), section
3.2: poses that look alike and lie alike are one person's, and the best of them comes first. Lengths are in px of any
frame in which SMALLEST_SCALE is small; on the device, in net px.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.oks import oks
from posesdk.spec import STRIDE, ModelSpec

__all__ = [
    "SMALLEST_SCALE",
    "distinct_poses",
    "group_poses",
    "group_sigma",
    "near_poses",
    "pose_scales",
    "pose_similarity",
    "spatial_density",
    "spatial_similarity",
]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]
Flags = NDArray[np.bool_]

SMALLEST_SCALE = STRIDE
"""Px: what a smaller pose counts as, for the features of less than a cell say nothing of its size."""
NEAR = 0.1
"""Mean distance of the keypoints below which poses are near, in their scale."""


def pose_scales(keypoints: FloatArray) -> FloatArray:
    """Square root (N,) of the area of the tight box of each pose (N, K, 2), at least SMALLEST_SCALE."""
    points = np.ascontiguousarray(keypoints.transpose(1, 2, 0))  # (K, 2, N): persons next to each other
    width, height = points.max(axis=0) - points.min(axis=0)
    scales: FloatArray = np.sqrt(np.maximum(width * height, np.float32(SMALLEST_SCALE**2)))
    return scales


def spatial_density(keypoints: FloatArray, sigma: float) -> FloatArray:
    """Equation 1 as it stands, (N, N): the mean over the keypoints of a normal density of their distance, per px.

    Its sigma is that of `spatial_similarity`, which is the same without the density's factor.
    """
    factor = _pair_scales(keypoints) * np.float32(sigma * math.sqrt(2 * math.pi))
    return spatial_similarity(keypoints, sigma) / factor


def spatial_similarity(keypoints: FloatArray, sigma: ArrayLike) -> FloatArray:
    """How alike poses (N, K, 2) lie, (N, N) in (0, 1], 1 where they are equal: the OKS of two poses.

    `sigma` is the spread of a keypoint in scales, one or one a keypoint (K,); the scale of a pair is the root of the
    mean of both areas.
    """
    spread = _pair_scales(keypoints)[..., None] * np.asarray(sigma, np.float32)  # (N, N, 1 or K)
    exponent = _square_distances(keypoints) / (np.float32(-2) * spread**2)
    similarity: FloatArray = np.exp(exponent, out=exponent).mean(axis=-1)
    return similarity


def group_sigma(spec: ModelSpec) -> float | FloatArray:
    """The `sigma` that a model groups by: `group_sigma`, or twice that of each keypoint of its skeleton (K,)."""
    if spec.pose_nets.dsp_per_keypoint_sigma:
        return 2 * spec.skeleton.sigma_array
    return spec.pose_nets.group_sigma


def pose_similarity(keypoints: FloatArray, embeddings: FloatArray, sigma: ArrayLike) -> FloatArray:
    """Similarity (N, N) in 0..1 of section 3.2: how alike poses look, by `embeddings` (N, E) of length 1, and lie."""
    return (embeddings @ embeddings.T).clip(0, 1) * spatial_similarity(keypoints, sigma)


def near_poses(keypoints: FloatArray) -> Flags:
    """(N, N) whether the keypoints of two poses (N, K, 2) are, in the mean, less than NEAR scales apart.

    How the paper's Table 6 groups the poses of two centers without a network for it.
    """
    near: Flags = np.sqrt(_square_distances(keypoints)).mean(axis=-1) < NEAR * _pair_scales(keypoints)
    return near


def group_poses(alike: Flags, scores: FloatArray) -> list[IndexArray]:
    """Indices of the poses of each person, the best of them first; the persons in the order of their best.

    The best pose that is left takes all that are left and `alike` (N, N) to it, and so on: no pose joins two others by
    standing between them. Which poses come together does not depend on their order where the `scores` (N,) differ.
    """
    order = np.argsort(-scores, kind="stable")
    near: list[list[int]] = [[] for _ in order]
    for rank, other in zip(*(ranks.tolist() for ranks in alike[order[:, None], order].nonzero()), strict=True):
        near[rank].append(other)
    left = [True] * len(order)
    groups = []
    for rank, others in enumerate(near):
        if left[rank]:
            left[rank] = False
            members = [rank, *(other for other in others if left[other])]
            for member in members:
                left[member] = False
            groups.append(order[members])
    return groups


def distinct_poses(keypoints: FloatArray, scores: FloatArray, sigmas: ArrayLike, limit: float) -> IndexArray:
    """Indices, best first, of the poses (N, K, 2) whose OKS with every better one that stays is at most `limit`.

    `scores` (N,), `sigmas` (K,) those of the skeleton. The area is that of the better pose's tight box.
    """
    better = np.concatenate([keypoints, np.ones_like(keypoints[..., :1])], axis=-1)
    alike = oks(keypoints, better, pose_scales(keypoints) ** 2, sigmas) > limit  # (N, N of the better ones)
    return np.array([group[0] for group in group_poses(alike.T, scores)], np.intp)


def _pair_scales(keypoints: FloatArray) -> FloatArray:
    areas = pose_scales(keypoints) ** 2
    scales: FloatArray = np.sqrt((areas[:, None] + areas[None]) / np.float32(2))
    return scales


def _square_distances(keypoints: FloatArray) -> FloatArray:
    """(N, N, K)"""
    across, down = (keypoints[:, None, :, axis] - keypoints[None, :, :, axis] for axis in (0, 1))
    return across**2 + down**2
