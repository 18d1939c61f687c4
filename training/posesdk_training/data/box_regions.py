"""Regions that are a box without others: a crowd whose outline nobody drew, less the people in it who are labelled."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_without"]


def box_without(box: Sequence[float], others: Sequence[NDArray[np.float32]]) -> list[list[float]]:
    """What of a box (x0, y0, x1, y1) lies in none of the `others`, as rectangles [x0, y0, x1, y0, x1, y1, x0, y1]."""
    left, top, right, bottom = box
    rows = sorted({top, bottom, *(min(max(float(y), top), bottom) for other in others for y in (other[1], other[3]))})
    rectangles = []
    for upper, lower in pairwise(rows):
        begin = left
        crossing = [other for other in others if other[1] <= upper and other[3] >= lower]
        for other in sorted(crossing, key=lambda other: float(other[0])):
            end = min(float(other[0]), right)
            if end > begin:
                rectangles.append([begin, upper, end, upper, end, lower, begin, lower])
            begin = max(begin, float(other[2]))
        if right > begin:
            rectangles.append([begin, upper, right, upper, right, lower, begin, lower])
    return rectangles
