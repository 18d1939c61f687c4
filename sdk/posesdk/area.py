"""Shrinking a picture, each pixel the mean of an area of it: what OpenCV's INTER_AREA gives, bit by bit, but sooner.

OpenCV has vector code for 2 x 2 areas only. Of larger whole ones, rows are added up here by vector code, and pixels of
a row by one small matrix product, which puts red first as well. The sums are whole and exact in float32.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["shrink_to_rgb"]

LEAST_FACTOR, MOST_FACTOR = 3, 256
"""Sides of the areas that are summed here; those of a larger one would not be exact."""
BYTES_AT_ONCE = 5 * 2**16
"""Of sums of rows: they stay in a core's cache, and the product is too small for BLAS to wake another thread."""

Picture = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


def shrink_to_rgb(image: Picture, target: Picture) -> None:
    """Writes an image (h, w, 3) uint8 BGR, made smaller, into `target` (H, W, 3) uint8 RGB, rows of any array."""
    height, width = target.shape[:2]
    factor = image.shape[0] // height
    whole = (height * factor, width * factor) == image.shape[:2]
    if whole and LEAST_FACTOR <= factor <= MOST_FACTOR:
        _sum_areas(image, target, factor)
    else:
        cv2.cvtColor(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB, dst=target)


def _sum_areas(image: Picture, target: Picture, factor: int) -> None:
    height, width = target.shape[:2]
    step = min(height, max(1, BYTES_AT_ONCE // (4 * image.shape[1] * 3)))
    all_sums, all_areas = np.empty((step, *image.shape[1:]), np.float32), np.empty((step, width, 3), np.float32)
    for top in range(0, height, step):
        pixels = target[top : top + step]
        sums, areas = all_sums[: len(pixels)], all_areas[: len(pixels)]
        rows = image[top * factor : (top + len(pixels)) * factor]
        np.copyto(sums, rows[::factor])
        for offset in range(1, factor):
            cv2.accumulate(rows[offset::factor], sums)
        np.matmul(sums.reshape(-1, factor * 3), _sum_matrix(factor), out=areas.reshape(-1, 3))
        # Halves go to the even number, as in OpenCV's mean.
        cv2.convertScaleAbs(areas, dst=pixels, alpha=1 / factor**2)


@lru_cache(maxsize=8)
def _sum_matrix(factor: int) -> FloatArray:
    """(3 factor, 3): from the BGR of so many neighbours to their sums in RGB."""
    matrix: FloatArray = np.tile(np.eye(3, dtype=np.float32)[:, ::-1], (factor, 1))
    matrix.flags.writeable = False
    return matrix
