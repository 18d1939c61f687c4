"""BBP and BBR: precision and recall of persons by their boxes, also of those without labelled keypoints.

From "Dual Anatomical Centers" (arXiv 2208.11975), which leaves the expansion of a pose's box and the area that sorts
persons into small, medium and large open: both of each are measured.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from posesdk_training.evaluation.backends import Backend, Results, Setting, curves
from posesdk_training.evaluation.ground_truth import GroundTruth

__all__ = ["AREA_MODES", "EXPANSIONS", "SIZES", "AreaMode", "BoxAccuracy", "evaluate_boxes", "pose_boxes"]

AreaMode = Literal["bbox", "ann"]
"""Size of a person: that of the box (the paper's text), or the annotated area (reproduces the paper's tables)."""
AREA_MODES: tuple[AreaMode, ...] = ("bbox", "ann")
EXPANSIONS = (0.0, 0.25)
"""By how much of its side a pose's box grows: even perfect keypoints do not reach the outline of a person."""

HALF_OPEN = 1e-6
"""COCO's ranges include both ends; the paper's small ones end with 64^2, the medium ones with 128^2."""
SIZES = {
    "all": (0.0, 1e10),
    "S": (0.0, 64.0**2),
    "M": (64.0**2 + HALF_OPEN, 128.0**2),
    "L": (128.0**2 + HALF_OPEN, 1e10),
}
IOU = 0.5
DETECTIONS = 100


@dataclass(frozen=True, slots=True)
class BoxAccuracy:
    """`precision` (BBP) and `recall` (BBR) in percent and number of `persons`, each by size: all, S, M, L.

    A size without persons has no figures.
    """

    area_mode: AreaMode
    expand: float
    precision: dict[str, float]
    recall: dict[str, float]
    persons: dict[str, int]


def evaluate_boxes(
    truth: GroundTruth,
    results: Results,
    *,
    area_mode: AreaMode = "ann",
    expand: float = 0.0,
    backend: Backend = "pycocotools",
) -> BoxAccuracy:
    """Box precision and recall at IoU 0.5, at most 100 persons an image; crowds are ignored.

    The box of a pose is that of all its K keypoints, grown by `expand` (half of it on each side) and cut to the image.
    """
    sized = _with_mode(truth, area_mode)
    setting = Setting("bbox", (IOU,), tuple(SIZES.values()), DETECTIONS)
    found = curves(sized, pose_boxes(truth, results, expand), setting, backend)
    precision, recall = {}, {}
    for index, name in enumerate(SIZES):
        if found.recall[0, index] > -1:
            precision[name] = 100 * float(found.precision[0, :, index].mean())
            recall[name] = 100 * float(found.recall[0, index])
    return BoxAccuracy(area_mode, expand, precision, recall, _count(sized))


def pose_boxes(truth: GroundTruth, results: Results, expand: float) -> Results:
    """Keypoint results on the images of `truth` as boxes (x, y, width, height), grown by `expand`, cut to the image."""
    images = truth.images
    boxes = []
    for result in results:
        if result["image_id"] not in images:
            continue
        points = np.asarray(result["keypoints"], np.float64).reshape(-1, 3)[:, :2]
        low, high = points.min(axis=0), points.max(axis=0)
        margin = (high - low) * expand / 2
        limit = _size(images[result["image_id"]])
        low, high = np.clip(low - margin, 0, limit), np.clip(high + margin, 0, limit)
        boxes.append(
            {
                "image_id": result["image_id"],
                "category_id": truth.category,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "score": result["score"],
            }
        )
    return boxes


def _size(image: dict[str, Any]) -> tuple[float, float]:
    """Width and height; without an end where the annotations do not give them."""
    return float(image.get("width", np.inf)), float(image.get("height", np.inf))


def _with_mode(truth: GroundTruth, area_mode: AreaMode) -> GroundTruth:
    if area_mode == "ann":
        return truth
    annotations = [entry | {"area": entry["bbox"][2] * entry["bbox"][3]} for entry in truth.tree["annotations"]]
    return replace(truth, tree=truth.tree | {"annotations": annotations})


def _count(truth: GroundTruth) -> dict[str, int]:
    chosen = set(truth.image_ids)
    areas = [
        entry["area"] for entry in truth.tree["annotations"] if entry["image_id"] in chosen and not entry.get("iscrowd")
    ]
    return {name: sum(low <= area <= high for area in areas) for name, (low, high) in SIZES.items()}
