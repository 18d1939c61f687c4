"""Boxes of people: of each person one."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["suppress"]


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], *, overlap: float, most: int) -> NDArray[np.intp]:
    """Which of `boxes` (N, 4) x1, y1, x2, y2 stay, the best first: none shares more than `overlap` with a better one.

    `overlap` is the intersection as a part of the union; at most `most` boxes.
    """
    corners, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    kept = cv2.dnn.NMSBoxes(np.concatenate([corners, sides], axis=1).tolist(), scores.tolist(), 0.0, overlap)
    return np.asarray(kept, np.intp).reshape(-1)[:most]
