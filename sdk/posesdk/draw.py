"""Skeletons on pictures."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.poses import Pose, Poses
from posesdk.skeleton import Skeleton

__all__ = ["Canvas", "Palette", "draw_person", "draw_poses", "person_extent"]

Color = tuple[int, ...]

# Okabe and Ito's palette, BGR: told apart also by readers who confuse red and green.
LEFT: Color = (0, 159, 230)
RIGHT: Color = (233, 180, 86)
CENTER: Color = (115, 208, 80)
OUTLINE: Color = (25, 25, 25)
TEXT: Color = (255, 255, 255)

SHIFT = 4
"""Fractional bits of drawn coordinates: a sixteenth of a pixel."""
FAR = 1e6
"""Pixels; a point further out than this is drawn at this distance, so that OpenCV's integers hold it."""
LINE_OF_PERSON = 0.012
"""Line width as a part of the diagonal of the person's visible keypoints."""
LINE_OF_IMAGE = 0.006
"""The widest line as a part of the image's longer side."""
FONT = cv2.FONT_HERSHEY_SIMPLEX

AROUND = 2
"""Pixels that anti-aliasing and rounding may color around a stroke or a letter."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colors of left limbs, of right ones, of the rest, of outlines and of text, one value per channel of a picture."""

    left: Color = LEFT
    right: Color = RIGHT
    center: Color = CENTER
    outline: Color = OUTLINE
    text: Color = TEXT


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """Pixels to draw on, (h, w) or (h, w, C) uint8: the part of a frame that begins at its pixel `origin`, x and y.

    `frame_size` is (height, width) of the whole frame, by which lines and letters are sized.
    """

    pixels: Image
    frame_size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    palette: Palette = Palette()


def draw_poses(frame: Image, poses: Poses, *, boxes: bool = False, scores: bool = False) -> Image:
    """A copy of the frame (H, W, 3) uint8 BGR with every person's visible keypoints, and limbs with two visible ends.

    Left limbs are orange, right ones blue, the rest green; lines grow with the person. `boxes` adds each person's box,
    `scores` the score (and the track id) beside it. ValueError for a frame of another shape or type.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"expected a frame (H, W, 3) uint8 BGR, got {frame.shape} {frame.dtype}")
    canvas = Canvas(np.ascontiguousarray(frame).copy(), (frame.shape[0], frame.shape[1]))
    for pose in reversed(list(poses)):  # the best person last, on top
        draw_person(canvas, pose, boxes=boxes, scores=scores)
    return canvas.pixels


def draw_person(canvas: Canvas, pose: Pose, *, boxes: bool = False, scores: bool = False) -> None:
    """Draws one person on the canvas itself; the pose is in pixels of the whole frame. Else as `draw_poses`."""
    width = _line_width(pose, max(canvas.frame_size))
    if boxes:
        _draw_box(canvas, pose, max(1, width // 2))
    _draw_limbs(canvas, pose, width)
    _draw_points(canvas, pose, width)
    if scores:
        _draw_label(canvas, pose)


def person_extent(
    pose: Pose, frame_size: tuple[int, int], *, boxes: bool = False, scores: bool = False
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the part of the frame in which `draw_person` may change a pixel.

    No pixels at all, right <= left or bottom <= top, where there is nothing to draw.
    """
    width = _line_width(pose, max(frame_size))
    corners = [np.zeros((0, 2))]
    points = pose.keypoints[_drawable(pose)]
    if len(points):
        reach = 0.5 + 0.9 * width + max(0.5, 0.3 * width)  # of a point with its rim; limbs are narrower
        corners += [points.min(axis=0, keepdims=True) - reach, points.max(axis=0, keepdims=True) + reach]
    if boxes and np.isfinite(pose.box).all():
        corners += [pose.box.reshape(2, 2) + np.array([[-width], [width]])]
    if scores:
        label = _label(pose, frame_size)
        x, y = label.corner
        corners += [np.array([(x, y - label.height), (x + label.width, y + label.base)])]
    every = np.concatenate(corners)
    if not len(every):
        return 0, 0, 0, 0
    least, most = np.floor(every.min(axis=0) - AROUND), np.ceil(every.max(axis=0) + AROUND + 1)
    height, width = frame_size
    left, right = np.clip([least[0], most[0]], 0, width)
    top, bottom = np.clip([least[1], most[1]], 0, height)
    return int(left), int(top), int(right), int(bottom)


def _line_width(pose: Pose, image_side: int) -> int:
    points = pose.keypoints[_drawable(pose)]
    diagonal = float(np.hypot(*np.ptp(points, axis=0))) if len(points) else 0.0
    return int(np.clip(round(LINE_OF_PERSON * diagonal), 1, max(1, round(LINE_OF_IMAGE * image_side))))


def _drawable(pose: Pose) -> NDArray[np.bool_]:
    return np.logical_and(pose.visible, np.isfinite(pose.keypoints).all(axis=1))


def _pixels(points: NDArray[Any], origin: tuple[int, int]) -> list[tuple[int, int]]:
    """What OpenCV draws at; anything where a point is not finite."""
    places = np.rint((np.clip(np.nan_to_num(points), -FAR, FAR) - origin) * (1 << SHIFT))
    return [(int(x), int(y)) for x, y in places.tolist()]


def _draw_limbs(canvas: Canvas, pose: Pose, width: int) -> None:
    drawable, ends = _drawable(pose).tolist(), _pixels(pose.keypoints, canvas.origin)
    limbs = [(a, b) for a, b in pose.skeleton.edges if drawable[a] and drawable[b]]
    for color, extra in ((canvas.palette.outline, max(2, width // 2)), (None, 0)):
        for a, b in limbs:
            stroke = color or _color(canvas.palette, pose.skeleton, a, b)
            cv2.line(canvas.pixels, ends[a], ends[b], stroke, width + extra, cv2.LINE_AA, SHIFT)


def _draw_points(canvas: Canvas, pose: Pose, width: int) -> None:
    radius, rim = (round(length * (1 << SHIFT)) for length in (0.5 + 0.9 * width, max(0.5, 0.3 * width)))
    centers = _pixels(pose.keypoints, canvas.origin)
    for index in np.flatnonzero(_drawable(pose)).tolist():
        center, color = centers[index], _color(canvas.palette, pose.skeleton, index)
        cv2.circle(canvas.pixels, center, radius + rim, canvas.palette.outline, cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas.pixels, center, radius, color, cv2.FILLED, cv2.LINE_AA, SHIFT)


def _draw_box(canvas: Canvas, pose: Pose, width: int) -> None:
    if np.isfinite(pose.box).all():
        start, end = _pixels(pose.box.reshape(2, 2), canvas.origin)
        cv2.rectangle(canvas.pixels, start, end, canvas.palette.text, width, cv2.LINE_AA, SHIFT)


@dataclass(frozen=True, slots=True)
class _Label:
    """A text, the left end of its base line in the frame, its font scale and its size in pixels."""

    text: str
    corner: tuple[int, int]
    scale: float
    width: int
    height: int
    base: int


def _label(pose: Pose, frame_size: tuple[int, int]) -> _Label:
    text = f"{pose.score:.2f}" if pose.track_id is None else f"{pose.track_id}: {pose.score:.2f}"
    height, width = frame_size
    scale = max(0.35, 0.0006 * max(height, width))
    (text_width, text_height), base = cv2.getTextSize(text, FONT, scale, 1)
    corner = np.nan_to_num(np.clip(pose.box[:2], -FAR, FAR))
    x = int(np.clip(corner[0], 0, max(0, width - text_width)))
    y = int(np.clip(corner[1] - base, text_height, max(text_height, height - base)))
    return _Label(text, (x, y), scale, text_width, text_height, base)


def _draw_label(canvas: Canvas, pose: Pose) -> None:
    label = _label(pose, canvas.frame_size)
    start = label.corner[0] - canvas.origin[0], label.corner[1] - canvas.origin[1]
    for color, width in ((canvas.palette.outline, 3), (canvas.palette.text, 1)):
        cv2.putText(canvas.pixels, label.text, start, FONT, label.scale, color, width, cv2.LINE_AA)


def _color(palette: Palette, skeleton: Skeleton, *indices: int) -> Color:
    sides = {skeleton.sides[index] for index in indices}
    if "left" in sides and "right" not in sides:
        return palette.left
    if "right" in sides and "left" not in sides:
        return palette.right
    return palette.center
