"""Pictures of labelled and of found people, made small enough for a page."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.draw import draw_poses
from posesdk.poses import Poses
from posesdk.skeleton import Skeleton
from posesdk_training.report.cases import Case

__all__ = ["draw_found", "draw_labelled", "fit_poses", "fit_side"]

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

# Okabe and Ito's vermilion and blue, BGR; ignored persons grey.
FAULT: Color = (0, 94, 213)
RIGHT: Color = (178, 114, 0)
IGNORED: Color = (160, 160, 160)
WHITE: Color = (255, 255, 255)
LOWEST_LABELLED = 30
"""Height in px of the smallest box that is given a text: those of a crowd would hide it."""
LABELLED = 0.5
"""Score from which an annotated keypoint is drawn: labelled ones have 1, the others 0."""


def fit_side(image: Image, side: int) -> tuple[Image, float]:
    """The image (H, W, 3) with at most `side` px on its long side, and the scale from the given one to it."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale == 1.0:
        return image, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def draw_labelled(image: Image, case: Case, skeleton: Skeleton, *, side: int) -> Image:
    """The annotation: skeletons of all labelled people; boxes with their OKS, of missed ones in another colour."""
    small, scale = fit_side(image, side)
    entries = [person.annotation for person in case.labelled if person.annotation["num_keypoints"]]
    points = _points(entries, skeleton)
    poses = _poses(points, np.ones(len(points)), small, scale, skeleton)
    canvas = draw_poses(small, poses)
    for person in case.labelled:
        box = np.array(person.annotation["bbox"], np.float64)
        corners = np.array([*box[:2], *(box[:2] + box[2:])]) * scale
        color = IGNORED if person.ignored else FAULT if person.missed else RIGHT
        text = "not counted" if person.ignored else "missed" if person.missed else f"OKS {person.oks:.2f}"
        _draw_box(canvas, corners, color, text)
    return canvas


def draw_found(image: Image, case: Case, skeleton: Skeleton, *, side: int, keypoint_threshold: float) -> Image:
    """What the model found: skeletons with the keypoints above their threshold; boxes with scores, wrong marked."""
    small, scale = fit_side(image, side)
    points = _points([entry.result for entry in case.found], skeleton)
    scores = np.array([entry.score for entry in case.found])
    poses = _poses(points, scores, small, scale, skeleton, threshold=keypoint_threshold)
    canvas = draw_poses(small, poses)
    for entry, person in zip(case.found, points, strict=True):
        shown = person[person[:, 2] >= keypoint_threshold]
        corners = _scaled((shown if len(shown) else person)[:, :2], scale)
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        _draw_box(canvas, box, FAULT if entry.wrong else RIGHT if entry.right else IGNORED, f"{entry.score:.2f}")
    return canvas


def _points(persons: Sequence[dict[str, Any]], skeleton: Skeleton) -> NDArray[np.float64]:
    """(N, K, 3) of COCO annotations or results."""
    return np.array([person["keypoints"] for person in persons], np.float64).reshape(-1, len(skeleton), 3)


def _poses(
    points: NDArray[np.float64],
    scores: NDArray[Any],
    image: Image,
    scale: float,
    skeleton: Skeleton,
    *,
    threshold: float = LABELLED,
) -> Poses:
    return Poses(
        keypoints=_scaled(points[..., :2], scale).astype(np.float32),
        keypoint_scores=np.minimum(points[..., 2], 1),  # v of a labelled keypoint is 1 or 2
        scores=scores,
        image_size=(image.shape[0], image.shape[1]),
        skeleton=skeleton,
        keypoint_threshold=threshold,
    )


def fit_poses(image: Image, poses: Poses, side: int) -> tuple[Image, Poses]:
    """An image and its poses with at most `side` px on the long side."""
    small, scale = fit_side(image, side)
    points = _scaled(poses.keypoints.astype(np.float64), scale).astype(np.float32)
    return small, replace(poses, keypoints=points, image_size=(small.shape[0], small.shape[1]))


def _scaled(points: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Pixel centers of the full picture in the small one."""
    return (points + 0.5) * scale - 0.5


def _draw_box(canvas: Image, corners: NDArray[np.float64], color: Color, text: str) -> None:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in np.clip(np.rint(corners), -1, [width, height, width, height]))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2 if color == FAULT else 1, cv2.LINE_AA)
    if y1 - y0 < LOWEST_LABELLED:
        return
    (text_width, text_height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    x, y = min(max(x0, 0), max(width - text_width - 4, 0)), max(y0 - base, text_height + 2)
    cv2.rectangle(canvas, (x, y - text_height - 2), (x + text_width + 4, y + base), color, cv2.FILLED)
    cv2.putText(canvas, text, (x + 2, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, WHITE, 1, cv2.LINE_AA)
