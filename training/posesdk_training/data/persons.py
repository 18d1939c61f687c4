"""One person out of an annotation, repaired where that is right; the faults are counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from posesdk_runtimes.errors import DataError
from posesdk_training.data.faults import FaultLog
from posesdk_training.data.records import PersonRecord, Region

__all__ = ["ImageSize", "PersonReader"]

Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in px."""
ImageSize = tuple[float, float] | None
"""Width and height in px, None where the file does not say."""

BORDER = 2.0
"""Px that a keypoint may lie outside of its image: half-pixel conventions, and rounding in photos that were shrunk."""
BOX_BORDER = 1.0
"""Px that a box may reach out of its image."""
KEYPOINT_MARGIN = 0.125
"""By what part of its side a box around keypoints is grown on each side, to be like an annotator's."""

NOT_A_NUMBER = "keypoints are no numbers and are ignored"
STRANGE_VISIBILITY = "keypoints have a visibility other than 0, 1 and 2: below 0 is taken as 0, above 2 as 2"
OUTSIDE = "keypoints lie outside of their image and are ignored"
DERIVED_BOX = "persons have no box within their image; it is taken from their mask or keypoints"
CUT_BOX = "boxes reach out of their image and are cut at its border"
BAD_AREA = "areas are no positive numbers and are taken from the box"
BAD_REGION = "masks are malformed and their boxes are taken instead"


@dataclass(frozen=True, slots=True)
class PersonReader:
    """Reads the annotations of one file.

    `count` keypoints an annotation; `order` (K,) where the model's keypoints stand among them, -1 for those that it
    does not have; `box_area` the area of a person without one, as a part of its box; `source` for messages.
    """

    source: str
    count: int
    order: NDArray[np.intp]
    box_area: float
    faults: FaultLog

    def read(self, annotation: dict[str, Any], size: ImageSize) -> tuple[PersonRecord, Region] | None:
        """The person, and the region that hides it; None where neither box, mask nor keypoints say where it is.

        Raises DataError for a list of keypoints that is none of this skeleton.
        """
        place = f"annotation {annotation.get('id')}"
        own = self._keypoints(annotation, size, place)
        polygons = self._segmentation(annotation, place)
        box, whole = self._box(annotation, own, polygons, size, place=place)
        if box is None or whole is None:
            return None
        keypoints = np.zeros((len(self.order), 3), dtype=np.float32)
        found = self.order >= 0
        keypoints[found] = own[self.order[found]]
        left, top, right, bottom = whole
        region = polygons or [[left, top, right, top, right, bottom, left, bottom]]
        area = self._area(annotation, (right - left) * (bottom - top), place)
        is_crowd = bool(annotation.get("iscrowd", 0))
        return PersonRecord(keypoints, np.array(box, dtype=np.float32), area, is_crowd), region

    def _keypoints(self, annotation: dict[str, Any], size: ImageSize, place: str) -> Floats:
        """(count, 3), zeros where nothing is labelled."""
        given = annotation.get("keypoints") or [0.0] * 3 * self.count
        try:
            points = np.asarray(given, dtype=np.float32).reshape(-1, 3)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.source}: the keypoints of {place} are no list of numbers x, y, v ({error}); correct the file"
            ) from error
        if len(points) != self.count:
            raise DataError(
                f"{self.source}: {place} has {len(points)} keypoints, the skeleton has {self.count}; "
                "give the data set its own skeleton, or correct the file"
            )
        if _is_plain(points, size):
            return points
        labelled = ~(points[:, 2] <= 0)
        wrong = ~np.isfinite(points).all(1)
        strange = ~wrong & ((points[:, 2] < 0) | (points[:, 2] > 2))
        outside = labelled & ~wrong & _is_outside(points, size)
        self.faults.add(NOT_A_NUMBER, place, int((wrong & labelled).sum()))
        self.faults.add(STRANGE_VISIBILITY, place, int(strange.sum()))
        self.faults.add(OUTSIDE, place, int(outside.sum()))
        points = points.copy()
        points[:, 2] = points[:, 2].clip(0, 2)
        points[wrong | outside] = 0
        return points

    def _box(
        self, annotation: dict[str, Any], points: Floats, region: Region | None, size: ImageSize, *, place: str
    ) -> tuple[Box | None, Box | None]:
        """xyxy within the image, and as it was given."""
        whole = _given_box(annotation.get("bbox"))
        if whole is None or _cut(whole, size) is None:
            whole = _box_of_region(region) if region else None
            whole = _box_of_keypoints(points) if whole is None else whole
            if whole is None or _cut(whole, size) is None:
                return None, None
            self.faults.add(DERIVED_BOX, place)
        elif size is not None and (
            min(whole[:2]) < -BOX_BORDER or whole[2] > size[0] + BOX_BORDER or whole[3] > size[1] + BOX_BORDER
        ):
            self.faults.add(CUT_BOX, place)
        else:
            return whole, whole
        return _cut(whole, size), whole

    def _area(self, annotation: dict[str, Any], box: float, place: str) -> float:
        given = annotation.get("area")
        if given is None:
            return self.box_area * box
        if isinstance(given, int | float) and np.isfinite(given) and given > 0:
            return float(given)
        self.faults.add(BAD_AREA, place)
        return self.box_area * box

    def _segmentation(self, annotation: dict[str, Any], place: str) -> Region | None:
        given = annotation.get("segmentation")
        if not given:
            return None
        if isinstance(given, list) and all(_is_polygon(polygon) for polygon in given):
            return given
        if isinstance(given, dict) and isinstance(given.get("counts"), list | str) and len(given.get("size", ())) == 2:
            return given
        self.faults.add(BAD_REGION, place)
        return None


def _is_plain(points: Floats, size: ImageSize) -> bool:
    """Whether nothing can be wrong with keypoints: all are numbers within the image, with v from 0 to 2."""
    low, high = points.min(0).tolist(), points.max(0).tolist()
    last = (np.finfo(np.float32).max,) * 2 if size is None else (size[0] - 1 + BORDER, size[1] - 1 + BORDER)
    return bool(min(low[:2]) >= -BORDER and low[2] >= 0 and high[0] <= last[0] and high[1] <= last[1] and high[2] <= 2)


def _is_outside(points: Floats, size: ImageSize) -> NDArray[np.bool_]:
    if size is None:
        return np.zeros(len(points), dtype=np.bool_)
    last = np.array(size, dtype=np.float32) - 1
    return np.asarray(((points[:, :2] < -BORDER) | (points[:, :2] > last + BORDER)).any(1))


def _given_box(given: Any) -> Box | None:
    """x, y, width, height as a box, None for what is none with an extent."""
    if not isinstance(given, Sequence) or len(given) != 4 or not all(isinstance(v, int | float) for v in given):
        return None
    x, y, width, height = given
    box = (float(x), float(y), float(x + width), float(y + height))
    return box if width > 0 and height > 0 and all(map(math.isfinite, box)) else None


def _cut(box: Box, size: ImageSize) -> Box | None:
    """The part of a box that lies in the image, None for one that does not."""
    if size is None:
        return box
    width, height = size
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))
    return inside if inside[2] > inside[0] and inside[3] > inside[1] else None


def _box_of_region(region: Region) -> Box | None:
    if isinstance(region, dict):
        encoding = coco_mask.frPyObjects(region, *region["size"]) if isinstance(region["counts"], list) else region
        x, y, width, height = coco_mask.toBbox(encoding)
        return _given_box([float(x), float(y), float(width), float(height)])
    return _with_extent(np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in region]))


def _box_of_keypoints(points: Floats) -> Box | None:
    box = _with_extent(points[points[:, 2] > 0, :2].astype(np.float64))
    if box is None:
        return None
    left, top, right, bottom = box
    across, down = KEYPOINT_MARGIN * (right - left), KEYPOINT_MARGIN * (bottom - top)
    return left - across, top - down, right + across, bottom + down


def _with_extent(points: NDArray[np.float64]) -> Box | None:
    """The box around points (n, 2)."""
    if len(points) < 2:
        return None
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else None


def _is_polygon(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return numbers and all(isinstance(v, int | float) for v in value) and bool(np.isfinite(value).all())
