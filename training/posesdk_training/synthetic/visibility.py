"""Annotations from the buffers: which keypoint is seen, boxes, areas and masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.scene import Scene

__all__ = ["Annotation", "annotated", "keypoint_visibility"]

Floats = NDArray[np.float64]

FACE = 5
DEPTH_LIMITS = np.array([0.6] * FACE + [1.5] * 6 + [2.2] * 2 + [1.5] * 4)
"""How far, in dm, what is seen at a keypoint may lie before it: the face's points lie on the skin, joints inside."""

MIN_AREA = 30
"""Square px; people of whom less is seen are marked as a crowd, to be left alone."""

MIN_SEEN = 2
"""With fewer visible keypoints a person is annotated without keypoints."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """`keypoints` (17, 3) x, y in px and v; `box` x, y, width, height of the visible `mask` (H, W); `area` its px."""

    keypoints: Floats
    box: tuple[int, int, int, int]
    area: int
    mask: NDArray[np.bool_]
    is_crowd: bool


def keypoint_visibility(
    pixels: Floats, depths: Floats, ids: NDArray[np.uint8], seen_depths: NDArray[np.float32], *, person: int
) -> NDArray[np.int64]:
    """(17,) v of a person's keypoints at `pixels` (17, 2) and `depths` (17,), in dm.

    2: within a pixel the person itself is seen, at most DEPTH_LIMITS before the keypoint. 1: something or the person
    itself is in front. 0: outside the picture; and, as annotators of photos do, for a point of the face that the
    person's own head or body hides.
    """
    height, width = ids.shape
    columns, rows = np.round(pixels).astype(np.int64).T
    inside = (depths > 1) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    result = np.zeros(len(pixels), dtype=np.int64)
    for index in np.flatnonzero(inside):
        column, row = columns[index], rows[index]
        near = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        own = ids[near] == person
        close = depths[index] - seen_depths[near] < DEPTH_LIMITS[index]
        if (own & close).any():
            result[index] = 2
        elif index >= FACE or not own.any():
            result[index] = 1
    return result


def annotated(scene: Scene, ids: NDArray[np.uint8], depths: NDArray[np.float32]) -> list[Annotation]:
    """One annotation for each person of whom anything is seen."""
    result = []
    for number, person in enumerate(scene.people, start=1):
        mask = ids == number
        area = int(mask.sum())
        if area == 0:
            continue
        pixels, along = scene.camera.project(person.keypoints)
        visibility = keypoint_visibility(pixels, along, ids, depths, person=number)
        if area < MIN_AREA or (visibility == 2).sum() < MIN_SEEN:
            visibility[:] = 0
        keypoints = np.concatenate([pixels, visibility[:, None]], axis=1)
        keypoints[visibility == 0] = 0
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        result.append(Annotation(keypoints, box, area, mask, area < MIN_AREA))
    return result
