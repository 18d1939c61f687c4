"""Skeletons on pictures."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.poses import Pose, Poses
from posesdk.skeleton import Skeleton

__all__ = ["draw_poses"]

Color = tuple[int, int, int]

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

Image = NDArray[np.uint8]


def draw_poses(frame: Image, poses: Poses, *, boxes: bool = False, scores: bool = False) -> Image:
    """A copy of the frame (H, W, 3) uint8 BGR with every person's visible keypoints, and limbs with two visible ends.

    Left limbs are orange, right ones blue, the rest green; lines grow with the person. `boxes` adds each person's box,
    `scores` the score (and the track id) beside it. ValueError for a frame of another shape or type.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"expected a frame (H, W, 3) uint8 BGR, got {frame.shape} {frame.dtype}")
    canvas = np.ascontiguousarray(frame).copy()
    for pose in reversed(list(poses)):  # the best person last, on top
        width = _line_width(pose, max(frame.shape[:2]))
        if boxes:
            _draw_box(canvas, pose, max(1, width // 2))
        _draw_limbs(canvas, pose, width)
        _draw_points(canvas, pose, width)
        if scores:
            _draw_label(canvas, pose)
    return canvas


def _line_width(pose: Pose, image_side: int) -> int:
    points = pose.keypoints[_drawable(pose)]
    diagonal = float(np.hypot(*np.ptp(points, axis=0))) if len(points) else 0.0
    return int(np.clip(round(LINE_OF_PERSON * diagonal), 1, max(1, round(LINE_OF_IMAGE * image_side))))


def _drawable(pose: Pose) -> NDArray[np.bool_]:
    return np.logical_and(pose.visible, np.isfinite(pose.keypoints).all(axis=1))


def _pixel(point: NDArray[Any]) -> tuple[int, int]:
    x, y = np.rint(np.clip(point, -FAR, FAR) * (1 << SHIFT))
    return int(x), int(y)


def _draw_limbs(canvas: Image, pose: Pose, width: int) -> None:
    drawable = _drawable(pose)
    limbs = [edge for edge in pose.skeleton.edges if drawable[list(edge)].all()]
    for color, extra in ((OUTLINE, max(2, width // 2)), (None, 0)):
        for a, b in limbs:
            ends = _pixel(pose.keypoints[a]), _pixel(pose.keypoints[b])
            cv2.line(canvas, *ends, color or _color(pose.skeleton, a, b), width + extra, cv2.LINE_AA, SHIFT)


def _draw_points(canvas: Image, pose: Pose, width: int) -> None:
    radius, rim = (round(length * (1 << SHIFT)) for length in (0.5 + 0.9 * width, max(0.5, 0.3 * width)))
    for index in np.flatnonzero(_drawable(pose)).tolist():
        center = _pixel(pose.keypoints[index])
        cv2.circle(canvas, center, radius + rim, OUTLINE, cv2.FILLED, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas, center, radius, _color(pose.skeleton, index), cv2.FILLED, cv2.LINE_AA, SHIFT)


def _draw_box(canvas: Image, pose: Pose, width: int) -> None:
    if np.isfinite(pose.box).all():
        corners = _pixel(pose.box[:2]), _pixel(pose.box[2:])
        cv2.rectangle(canvas, *corners, TEXT, width, cv2.LINE_AA, SHIFT)


def _draw_label(canvas: Image, pose: Pose) -> None:
    text = f"{pose.score:.2f}" if pose.track_id is None else f"{pose.track_id}: {pose.score:.2f}"
    height, width = canvas.shape[:2]
    scale = max(0.35, 0.0006 * max(height, width))
    (text_width, text_height), base = cv2.getTextSize(text, FONT, scale, 1)
    corner = np.nan_to_num(np.clip(pose.box[:2], -FAR, FAR))
    x = int(np.clip(corner[0], 0, max(0, width - text_width)))
    y = int(np.clip(corner[1] - base, text_height, max(text_height, height - base)))
    cv2.putText(canvas, text, (x, y), FONT, scale, OUTLINE, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), FONT, scale, TEXT, 1, cv2.LINE_AA)


def _color(skeleton: Skeleton, *indices: int) -> Color:
    sides = {skeleton.sides[index] for index in indices}
    if "left" in sides and "right" not in sides:
        return LEFT
    if "right" in sides and "left" not in sides:
        return RIGHT
    return CENTER
