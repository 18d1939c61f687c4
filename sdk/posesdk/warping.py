"""The pixels of a network's input, from those of an image: scaled alike along both axes, shifted, black around.

What each function gives is said by a plain formula; where less work gives the same bits, the less is done.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.area import shrink_to_rgb

__all__ = ["AREA_SCALE", "warp_in_float", "warp_with_areas"]

AREA_SCALE = 0.5
"""Below this scale bilinear interpolation skips pixels, and frame "consistent" averages areas first."""
WARP_LIMIT = 32766
"""Longest side that OpenCV's warpAffine takes."""
WHOLE = 1e-3
"""Px that a shift may be off a whole number: warpAffine itself rounds to 1/32."""
RGB = (2, 1, 0)
"""The channels of a BGR pixel."""
BYTES_AT_ONCE = 2**19
"""Of rows that are worked on together: what stays in a core's own cache."""

Picture = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]
Tap = tuple[IndexArray, FloatArray]
"""Indices and weights."""
Matrix = NDArray[np.float64]
Size = tuple[int, int]


def warp_with_areas(image: Picture, net_size: Size, matrix: Matrix) -> Picture:
    """warpAffine of an image (h, w, 3) BGR by `matrix` (2, 3), as RGB; below half size areas are averaged first."""
    height, width = image.shape[:2]
    scale = float(matrix[0, 0])
    small = (max(round(height * scale), 1), max(round(width * scale), 1))
    shrinks = scale < AREA_SCALE or max(height, width) > WARP_LIMIT
    # At half size a bilinear sample between whole pixels is the mean of its 2 x 2.
    if shrinks or (height, width) in (small, (2 * small[0], 2 * small[1])):
        rest = _from_small(small, (height, width), matrix)
        corner = _whole_shift(rest, small, net_size)
        if corner is not None:
            net = np.zeros((*net_size, 3), np.uint8)
            shrink_to_rgb(image, net[corner[0] : corner[0] + small[0], corner[1] : corner[1] + small[1]])
            return net
    if shrinks:
        image, matrix = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA), rest  # type: ignore[assignment]
    net = cv2.warpAffine(image, matrix, net_size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[assignment]
    return cv2.cvtColor(net, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _from_small(small: Size, size: Size, matrix: Matrix) -> Matrix:
    """The matrix (2, 3) that is left for an image made `small` by averaging areas."""
    growth = np.array([size[1] / small[1], size[0] / small[0]])  # image px per px of the small image, x and y
    rest = matrix.copy()
    rest[:, 2] += matrix[:, :2] @ (growth - 1) / 2
    rest[:, :2] *= growth
    return rest


def _whole_shift(matrix: Matrix, size: Size, net_size: Size) -> Size | None:
    """Row and column of the net at which an image of that size begins, if the matrix moves whole pixels there."""
    corner = []
    for axis in (1, 0):  # y, then x
        scale, shift, side = float(matrix[axis, axis]), float(matrix[axis, 2]), size[1 - axis]
        first = round(shift)
        off = max(abs(shift - first), abs(scale * (side - 1) + shift - (side - 1) - first))
        if off > WHOLE or first < 0 or first + side > net_size[1 - axis]:
            return None
        corner.append(first)
    return corner[0], corner[1]


def warp_in_float(image: Picture, net_size: Size, matrix: Matrix) -> Picture:
    """Scaled and shifted image (h, w, 3), bilinear along one axis after the other, 0 outside; BGR in, RGB out."""
    (height, width), lines = net_size, np.ascontiguousarray(image).reshape(len(image), -1)  # (h, 3w)
    below = _taps(height, image.shape[0], matrix[1, 1], matrix[1, 2])
    aside = tuple(
        ((3 * index[:, None] + RGB).reshape(-1), np.repeat(weight, 3))
        for index, weight in _taps(width, image.shape[1], matrix[0, 0], matrix[0, 2])
    )
    net = np.empty((height, 3 * width), np.uint8)
    step = max(1, BYTES_AT_ONCE // (4 * lines.shape[1]))
    for top in range(0, height, step):
        part = slice(top, top + step)
        rows = _blend(lines, tuple((index[part], weight[part, None]) for index, weight in below), 0)
        cv2.convertScaleAbs(_blend(rows, aside, 1), dst=net[part])
    return net.reshape(height, width, 3)


def _taps(count: int, size: int, scale: float, shift: float) -> tuple[Tap, Tap]:
    """The pixels, of `size` along an axis, before and after the place of each of `count` net px, and their weights."""
    positions = ((np.arange(count) - shift) / scale).astype(np.float32)
    low = np.floor(positions)
    index, fraction = low.astype(np.intp), positions - low
    return _inside(index, 1 - fraction, size), _inside(index + 1, fraction, size)


def _inside(index: IndexArray, weight: FloatArray, size: int) -> Tap:
    return index.clip(0, size - 1), np.where((index >= 0) & (index < size), weight, np.float32(0))


def _blend(pixels: FloatArray | Picture, taps: tuple[Tap, ...], axis: int) -> FloatArray:
    """The weighted sum of what two taps take along an axis."""
    (low, low_weight), (high, high_weight) = taps
    total: FloatArray = pixels.take(low, axis=axis).astype(np.float32, copy=False)
    other: FloatArray = pixels.take(high, axis=axis).astype(np.float32, copy=False)
    total *= low_weight
    other *= high_weight
    total += other
    return total
