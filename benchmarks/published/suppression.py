"""DEKR's suppression of poses that were found twice, as LOGO-CAP uses it."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["suppress"]

NEAR = 0.05
"""Of the diagonal of a pose's box."""
MOST_NEAR = 8
"""Keypoints of another pose that may be near."""


def suppress(poses: NDArray[np.float32], scores: NDArray[np.float32]) -> list[int]:
    """Which of the poses (N, 17, 2) with scores (N,) stay, in the order in which they are kept."""
    extents = np.ptp(poses, axis=1)
    diagonals = np.sqrt((extents**2).sum(axis=1))
    distances = np.sqrt(((poses[:, None] - poses[None]) ** 2).sum(axis=3))  # (N, N, 17)
    near = (distances < NEAR * diagonals[:, None, None]).sum(axis=2) > MOST_NEAR
    kept: list[int] = []
    ignored: set[int] = set()
    for index in range(len(poses)):
        if index in ignored:
            continue
        members = np.flatnonzero(near[index]).tolist()
        if members:
            best = max(members, key=lambda member: scores[member])
            if best not in ignored:
                kept.append(best)
        ignored.update(members)
    return kept
