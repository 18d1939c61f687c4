"""Pixels of raw video buffers: to the BGR that the SDK works in, and skeletons drawn on them where they lie.

NV12 and I420 are converted by the matrix and the range that the layout names, to one step of 255 of their standard's
formula; every chroma sample counts for its 2x2 pixels. GStreamer's videoconvert computes in 8 bits and is up to 6 off.
"""

from dataclasses import fields
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.draw import Canvas, Color, Palette, draw_person, person_extent
from posesdk.gst.layout import Layout
from posesdk.poses import Pose, Poses

__all__ = ["Memory", "draw_on", "to_bgr"]

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
GRAY_OF_BGR = (0.114, 0.587, 0.299)
"""ITU-R BT.601, as OpenCV's and GStreamer's gray."""
OPAQUE = 255
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


def draw_on(memory: Memory, layout: Layout, poses: Poses, *, boxes: bool = False, scores: bool = False) -> None:
    """Draws people in place, as `draw_poses` does on a BGR picture; `poses` are in pixels of this picture.

    Every byte that no stroke touches stays: with NV12 and I420, a chroma sample is touched with any of its 2x2 pixels.
    Where the fourth byte of a pixel is opacity, strokes make it opaque. ValueError for short or read-only memory.
    """
    planes = plane_views(memory, layout)
    if not planes[0].flags.writeable:
        raise ValueError("cannot draw on read-only memory: map the buffer for reading and writing")
    palette = palette_of(layout.format, layout.luma, layout.full_range)
    for pose in reversed(list(poses)):  # the best person last, on top
        if len(planes) > 1:
            _draw_on_yuv(planes, palette, pose, boxes=boxes, scores=scores)
        else:
            canvas = Canvas(planes[0], (layout.height, layout.width), palette=palette)
            draw_person(canvas, pose, boxes=boxes, scores=scores)


def _draw_on_yuv(planes: list[Bytes], palette: Palette, pose: Pose, *, boxes: bool, scores: bool) -> None:
    """Only on the part of the planes that the person takes, as all its Y, U, V are joined for it."""
    luma, *chroma = planes
    height, width = luma.shape
    left, top, right, bottom = person_extent(pose, (height, width), boxes=boxes, scores=scores)
    if right <= left or bottom <= top:
        return
    left, top = left // 2 * 2, top // 2 * 2  # whole samples of chroma
    right, bottom = min(right + right % 2, width), min(bottom + bottom % 2, height)
    halves = slice(top // 2, (bottom + 1) // 2), slice(left // 2, (right + 1) // 2)
    part = [luma[top:bottom, left:right], *(plane[halves] for plane in chroma)]
    yuv = join_yuv(part[0], part[1:])
    draw_person(Canvas(yuv, (height, width), (left, top), palette), pose, boxes=boxes, scores=scores)
    write_yuv(yuv, part)


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


def write_yuv(yuv: Bytes, planes: list[Bytes]) -> None:
    """The inverse of `join_yuv`, into the planes: a chroma sample is the mean of its pixels, unchanged if they are."""
    luma, *chroma = cv2.split(yuv)
    halves = [_halved(plane) for plane in chroma]
    for plane, values in zip(planes, [luma, *halves] if len(planes) == 3 else [luma, cv2.merge(halves)], strict=True):
        plane[...] = values


def _halved(plane: cv2.typing.MatLike) -> cv2.typing.MatLike:
    """The mean of every block of 2x2; of what is left of it at an odd edge."""
    height, width = plane.shape
    if height % 2 or width % 2:
        plane = cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(plane, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)


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


@lru_cache(maxsize=16)
def palette_of(name: str, luma: tuple[float, float], full_range: bool) -> Palette:
    """The colors of `draw_poses` in the bytes of a format."""
    palette = Palette()
    return Palette(*(_color_of(getattr(palette, entry.name), name, luma, full_range) for entry in fields(palette)))


def _color_of(bgr: Color, name: str, luma: tuple[float, float], full_range: bool) -> Color:
    if name in ("NV12", "I420"):
        matrix = yuv_to_bgr(luma, full_range)
        values = np.linalg.solve(matrix[:, :3], np.array(bgr) - matrix[:, 3])
        return tuple(int(value) for value in np.rint(values).clip(0, 255))
    if name == "GRAY8":
        return (round(float(np.dot(bgr, GRAY_OF_BGR))),)
    return (*(bgr if name.startswith("B") else bgr[::-1]), *([OPAQUE] if len(name) == 4 else []))
