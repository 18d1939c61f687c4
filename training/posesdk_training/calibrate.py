"""Thresholds of a model, chosen on labelled photos, and written into its checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import COCO_17, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.evaluate import Matching, Results, match_results

__all__ = ["Thresholds", "best_threshold", "choose_thresholds", "write_thresholds"]

GOOD_KEYPOINT = 0.5
"""Similarity exp(-d^2 / (2 area (2 sigma)^2)) from which a keypoint counts as right."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores with the best F1, and precision and recall of persons (OKS 0.5) and keypoints there."""

    score: float
    precision: float
    recall: float
    keypoint: float
    keypoint_precision: float
    keypoint_recall: float


def best_threshold(scores: Floats, right: NDArray[np.bool_], total: int) -> tuple[float, float, float]:
    """The score threshold with the best F1, its precision and recall; `total` is how many there are to find."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    taken = np.arange(1, len(order) + 1)
    f1 = 2 * hits / (taken + total)
    # Only the last of equal scores can be a threshold.
    last = np.append(np.diff(scores[order]) != 0, True)
    best = int(np.where(last, f1, -1.0).argmax())
    return float(scores[order][best]), float(hits[best] / taken[best]), float(hits[best] / max(total, 1))


def choose_thresholds(
    annotations: Path,
    results: Results,
    *,
    image_ids: Sequence[int] | None = None,
    skeleton: Skeleton = COCO_17,
) -> Thresholds:
    """The thresholds at which the results of a model, down to score 0, have the best F1 on a COCO file.

    A person is right at OKS 0.5. A keypoint of such a person is right at half a similarity; one that is not labelled,
    as a rule because it is not in the picture, is wrong wherever it is.
    Raises DataError when no person is found at OKS 0.5: there is nothing to choose from.
    """
    matching = match_results(annotations, results, image_ids=image_ids, skeleton=skeleton)
    if not matching.matches:
        raise DataError(f"cannot choose thresholds on {annotations}: no person is found at OKS 0.5; train on")
    score, precision, recall = best_threshold(matching.scores, matching.right, matching.persons)
    values, good = _keypoints(matching, skeleton)
    keypoint = best_threshold(values, good, int(good.sum()))
    return Thresholds(score, precision, recall, *keypoint)


def _keypoints(matching: Matching, skeleton: Skeleton) -> tuple[Floats, NDArray[np.bool_]]:
    """Score of every keypoint of the matched persons, and whether it is right."""
    values, good = [], []
    variances = (2 * skeleton.sigma_array.astype(np.float64)) ** 2
    for result, person in matching.matches:
        found = np.array(result["keypoints"]).reshape(-1, 3)
        truth = np.array(person["keypoints"], dtype=np.float64).reshape(-1, 3)
        distance = ((found[:, :2] - truth[:, :2]) ** 2).sum(1)
        similarity = np.exp(-distance / (2 * max(person["area"], 1.0) * variances))
        values.append(found[:, 2])
        good.append((similarity >= GOOD_KEYPOINT) & (truth[:, 2] > 0))
    return np.concatenate(values), np.concatenate(good)


def write_thresholds(source: Path, target: Path, thresholds: Thresholds, *, half: bool) -> None:
    """The checkpoint `source` with these thresholds in its `ModelSpec`, as `target`; `half` stores float16 weights."""
    checkpoint = load_checkpoint(source)
    changes = {"score_threshold": round(thresholds.score, 4), "keypoint_threshold": round(thresholds.keypoint, 4)}
    decode = checkpoint.spec.decode.model_copy(update=changes)
    spec = checkpoint.spec.model_copy(update={"decode": decode})
    save_checkpoint(target, checkpoint.state_dict, spec, metadata=checkpoint.metadata, half=half)
