"""Pixels of raw video buffers: to the BGR that the SDK works in.

NV12 and I420 are converted by the matrix and the range that the layout names, to one step of 255 of their standard's
formula; every chroma sample counts for its 2x2 pixels. GStreamer's videoconvert computes in 8 bits and is up to 6 off.
"""

from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.gst.layout import Layout

__all__ = ["Memory", "to_bgr"]

Bytes = NDArray[np.uint8]
Memory: TypeAlias = memoryview | bytes | bytearray | Bytes

TO_BGR = {
    "RGB": cv2.COLOR_RGB2BGR,
    "RGBx": cv2.COLOR_RGBA2BGR,
    "RGBA": cv2.COLOR_RGBA2BGR,
    "BGRx": cv2.COLOR_BGRA2BGR,
    "BGRA": cv2.COLOR_BGRA2BGR,
    "GRAY8": cv2.COLOR_GRAY2BGR,
}
STRIP = 64
"""Rows converted at a time: a strip stays in the cache, and whole pictures between steps cost 3 ms in page faults."""


def to_bgr(memory: Memory, layout: Layout) -> Bytes:
    """The picture (H, W, 3) uint8 BGR in memory of its own. ValueError for memory shorter than the layout."""
    planes = plane_views(memory, layout)
    if layout.format == "BGR":
        return planes[0].copy()
    if layout.format in TO_BGR:
        return cv2.cvtColor(planes[0], TO_BGR[layout.format])  # type: ignore[return-value]
    matrix = yuv_to_bgr(layout.luma, layout.full_range)
    luma, *chroma = planes
    picture = np.empty((layout.height, layout.width, 3), np.uint8)
    for top in range(0, layout.height, STRIP):
        half = slice(top // 2, (top + STRIP) // 2)
        yuv = join_yuv(luma[top : top + STRIP], [plane[half] for plane in chroma])
        cv2.transform(yuv, matrix, dst=picture[top : top + STRIP])
    return picture


def plane_views(memory: Memory, layout: Layout) -> list[Bytes]:
    """The planes in the memory, (rows, columns) or (rows, columns, channels) each; ValueError where it is too short."""
    flat = np.frombuffer(memory, np.uint8)
    if flat.size < layout.size:
        raise ValueError(
            f"a buffer of {flat.size} bytes is too short for {layout.format} {layout.width}x{layout.height} "
            f"with strides {layout.strides}: expected at least {layout.size}"
        )
    views = []
    for plane in layout.planes:
        shape = (plane.rows, plane.columns, plane.channels)
        view: Bytes = np.ndarray(shape, np.uint8, flat, plane.offset, (plane.stride, plane.channels, 1))
        views.append(view[..., 0] if plane.channels == 1 else view)
    return views


def join_yuv(luma: Bytes, chroma: list[Bytes]) -> Bytes:
    """Y, U, V of every pixel (h, w, 3) of a plane of luma and those of chroma, which hold one sample per 2x2 pixels."""
    height, width = luma.shape
    separate = chroma if len(chroma) == 2 else cv2.split(chroma[0])
    blue, red = (_doubled(plane)[:height, :width] for plane in separate)
    return cv2.merge([luma, blue, red])  # type: ignore[return-value]


def _doubled(plane: cv2.typing.MatLike) -> Bytes:
    """Every sample as a block of 2x2; six times as fast as cv2.resize."""
    height, width = plane.shape
    rows = cv2.merge([plane, plane]).reshape(height, 2 * width)
    return np.repeat(rows, 2, axis=0)


@lru_cache(maxsize=8)
def yuv_to_bgr(luma: tuple[float, float], full_range: bool) -> NDArray[np.float32]:
    """(3, 4) float32: B, G, R in 0..255 of Y, U, V, 1 in 0..255; ITU-R BT.601, 709 and 2020, 8 bits."""
    red, blue = luma
    green = 1 - red - blue
    black, luma_steps, chroma_steps = (0, 255, 255) if full_range else (16, 219, 224)
    from_blue, from_red = 2 * (1 - blue), 2 * (1 - red)  # of chroma in -0.5..0.5
    weights = np.array(
        [[1, from_blue, 0], [1, -from_blue * blue / green, -from_red * red / green], [1, 0, from_red]], np.float64
    ) * [255 / luma_steps, 255 / chroma_steps, 255 / chroma_steps]
    offset = -weights @ [black, 128, 128]
    return np.column_stack([weights, offset]).astype(np.float32)
