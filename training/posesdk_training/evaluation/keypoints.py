"""Keypoint AP and AR after COCO, CrowdPose and OCHuman."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.evaluation.backends import Backend, Curves, Results, Setting, curves
from posesdk_training.evaluation.ground_truth import GroundTruth, ProtocolName

__all__ = ["CROWD_LEVELS", "STATS", "KeypointAccuracy", "evaluate_keypoints", "stats_of"]

STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The figures of the COCO keypoint evaluation, in pycocotools' order."""
CROWD_LEVELS = {"AP_easy": (0.0, 0.2), "AP_medium": (0.2, 0.8), "AP_hard": (0.8, float("inf"))}
"""CrowdPose's levels: from, and below, which `crowdIndex` of an image."""

Pick = Callable[[Curves], NDArray[np.float64]]

_PICKS: dict[str, Pick] = {
    "AP": lambda found: found.precision[:, :, 0],
    "AP50": lambda found: found.precision[0, :, 0],
    "AP75": lambda found: found.precision[5, :, 0],
    "APM": lambda found: found.precision[:, :, 1],
    "APL": lambda found: found.precision[:, :, 2],
    "AR": lambda found: found.recall[:, 0],
    "AR50": lambda found: found.recall[0, :1],
    "AR75": lambda found: found.recall[5, :1],
    "ARM": lambda found: found.recall[:, 1],
    "ARL": lambda found: found.recall[:, 2],
}
"""Where each figure stands in the curves over OKS 0.50:0.05:0.95 and the area ranges all, medium and large."""


@dataclass(frozen=True, slots=True)
class KeypointAccuracy:
    """The `stats` by name (one that nothing falls under is left out), and what they were measured on.

    AR50 is the share of labelled persons that are found at OKS 0.5. `persons` counts the labelled ones: not crowd,
    with at least one keypoint.
    """

    stats: dict[str, float]
    images: int
    persons: int


def stats_of(protocol: ProtocolName) -> tuple[str, ...]:
    """Names of a protocol's figures, in its order."""
    if protocol == "crowdpose":
        return ("AP", "AP50", "AP75", "AR", "AR50", "AR75", *CROWD_LEVELS)
    return STATS


def evaluate_keypoints(truth: GroundTruth, results: Results, *, backend: Backend = "pycocotools") -> KeypointAccuracy:
    """Keypoint evaluation of results after the protocol of `truth`.

    Raises ValueError for a result with a `bbox`, from which the backends would take its area, MissingDependencyError
    for a backend that is not installed.
    """
    if any("bbox" in result for result in results):
        raise ValueError("keypoint results must have no `bbox`: the area of a detection would be taken from it")
    found = curves(truth, results, Setting(), backend)
    values = {name: _mean(_PICKS[name](found)) for name in stats_of(truth.protocol) if name in _PICKS}
    if truth.protocol == "crowdpose":
        values |= _crowd_levels(truth, results, backend)
    stats = {name: value for name, value in values.items() if value is not None}
    return KeypointAccuracy(stats, len(truth.image_ids), len(truth.persons))


def _crowd_levels(truth: GroundTruth, results: Results, backend: Backend) -> dict[str, float | None]:
    """AP on the images of each level alone, to four decimals as CrowdPose's own evaluation gives it."""
    levels: dict[str, float | None] = {}
    for name, (low, high) in CROWD_LEVELS.items():
        chosen = {number for number, entry in truth.images.items() if low <= entry.get("crowdIndex", -1) < high}
        part = truth.of_images(sorted(chosen))
        ours = [result for result in results if result["image_id"] in chosen]
        value = _mean(curves(part, ours, Setting(), backend).precision[:, :, 0]) if chosen else None
        levels[name] = None if value is None else round(value, 4)
    return levels


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of what is there; None where nobody falls under a figure."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None
