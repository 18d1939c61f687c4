"""One person out of an annotation, repaired where that is right; the faults are counted."""

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
Box = NDArray[np.float64]
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
        left, top, right, bottom = (float(value) for value in whole)
        region = polygons or [[left, top, right, top, right, bottom, left, bottom]]
        area = self._area(annotation, (right - left) * (bottom - top), place)
        is_crowd = bool(annotation.get("iscrowd", 0))
        return PersonRecord(keypoints, box.astype(np.float32), area, is_crowd), region

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
        labelled = ~(points[:, 2] <= 0)
        wrong = ~np.isfinite(points).all(1)
        strange = ~wrong & ((points[:, 2] < 0) | (points[:, 2] > 2))
        outside = labelled & ~wrong & _is_outside(points, size)
        if wrong.any() or strange.any() or outside.any():
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
        elif size is not None and (whole[:2].min() < -BOX_BORDER or (whole[2:] > np.add(size, BOX_BORDER)).any()):
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


def _is_outside(points: Floats, size: ImageSize) -> NDArray[np.bool_]:
    if size is None:
        return np.zeros(len(points), dtype=np.bool_)
    last = np.array(size, dtype=np.float32) - 1
    return np.asarray(((points[:, :2] < -BORDER) | (points[:, :2] > last + BORDER)).any(1))


def _given_box(given: Any) -> Box | None:
    """x, y, width, height as xyxy, None for what is no box with an extent."""
    if not isinstance(given, Sequence) or len(given) != 4 or any(not isinstance(v, int | float) for v in given):
        return None
    x, y, width, height = given
    box = np.array([x, y, x + width, y + height], dtype=np.float64)
    return box if np.isfinite(box).all() and width > 0 and height > 0 else None


def _cut(box: Box, size: ImageSize) -> Box | None:
    """The part of a box that lies in the image, None for one that does not."""
    if size is None:
        return box
    inside = np.clip(box, 0, np.array([*size, *size]))
    return inside if (inside[2:] > inside[:2]).all() else None


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
    margin = KEYPOINT_MARGIN * (box[2:] - box[:2])
    return np.concatenate([box[:2] - margin, box[2:] + margin])


def _with_extent(points: Box) -> Box | None:
    if len(points) < 2:
        return None
    box = np.concatenate([points.min(0), points.max(0)])
    return box if (box[2:] > box[:2]).all() else None


def _is_polygon(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return numbers and all(isinstance(v, int | float) for v in value) and bool(np.isfinite(value).all())
