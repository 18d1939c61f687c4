"""Thresholds of a model, chosen on labelled photos, and written into its checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.evaluation.backends import Results
from posesdk_training.evaluation.false_positives import FalsePositives
from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.matching import Matching, match_results
from posesdk_training.evaluation.per_keypoint import similarities

__all__ = [
    "Threshold",
    "Thresholds",
    "best_threshold",
    "choose_thresholds",
    "lowest_threshold",
    "rounded_up",
    "with_group_threshold",
    "write_thresholds",
]

GOOD_KEYPOINT = 0.5
"""Similarity exp(-d^2 / (2 area (2 sigma)^2)) from which a keypoint counts as right."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score threshold, and precision and recall of what scores at least so much."""

    score: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The best thresholds of persons (right at OKS 0.5) and of keypoints.

    `best` is the one of persons with the best F1 of all; `person` is that or, where the number of false persons is
    limited, the best one that keeps to the limit.
    """

    person: Threshold
    keypoint: Threshold
    best: Threshold


def best_threshold(scores: Floats, right: NDArray[np.bool_], total: int, lowest: float = -np.inf) -> Threshold | None:
    """The score threshold with the best F1 of those of at least `lowest`; `total` is how many there are to find.

    None where no score is so high.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    taken = np.arange(1, len(order) + 1)
    f1 = 2 * hits / (taken + total)
    # Only the last of equal scores can be a threshold.
    last = np.append(np.diff(scores[order]) != 0, True)
    allowed = last[: len(order)] & (scores[order] >= lowest)
    if not allowed.any():
        return None
    best = int(np.where(allowed, f1, -1.0).argmax())
    return Threshold(float(scores[order][best]), float(hits[best] / taken[best]), float(hits[best] / max(total, 1)))


def lowest_threshold(empty: FalsePositives, limit: float) -> float:
    """The lowest threshold at which at most `limit` false persons an image are found, on pictures without people."""
    allowed = int(np.floor(limit * empty.images + 1e-9))
    scores = np.sort(empty.scores)[::-1]
    return float(np.nextafter(scores[allowed], np.float32(np.inf))) if len(scores) > allowed else 0.0


def choose_thresholds(
    truth: GroundTruth, results: Results, *, empty: FalsePositives | None = None, limit: float = np.inf
) -> Thresholds:
    """The thresholds at which the results of a model, down to score 0, have the best F1.

    With `empty`, at most `limit` persons a picture may be found where nobody is. A person is right at OKS 0.5. A
    keypoint of such a person is right at half a similarity; one that is not labelled, as a rule because it is not in
    the picture, is wrong wherever it is.
    Raises DataError when no person is found at OKS 0.5, or none above the limit: there is nothing to choose from.
    """
    matching = match_results(truth, results)
    best = best_threshold(matching.scores, matching.right, matching.persons)
    if best is None or not matching.matches:
        raise DataError(f"cannot choose thresholds on {truth.path}: no person is found at OKS 0.5; train on")
    person = best
    if empty is not None:
        lowest = lowest_threshold(empty, limit)
        kept = best_threshold(matching.scores, matching.right, matching.persons, lowest)
        if kept is None or kept.recall == 0:
            raise DataError(
                f"cannot keep to {limit:g} false persons a picture on {truth.path}: every right person scores below "
                f"{lowest:.4f}; allow more with --max-false-positives, or train on with pictures without people"
            )
        person = kept
    values, good = _keypoints(matching, truth)
    keypoint = best_threshold(values, good, int(good.sum()))
    assert keypoint is not None
    return Thresholds(person, keypoint, best)


def _keypoints(matching: Matching, truth: GroundTruth) -> tuple[Floats, NDArray[np.bool_]]:
    """Score of every keypoint of the matched persons, and whether it is right."""
    found, actual = (
        np.array([pair[side]["keypoints"] for pair in matching.matches], np.float64).reshape(
            len(matching.matches), -1, 3
        )
        for side in (0, 1)
    )
    areas = np.array([[max(person["area"], 1.0)] for _, person in matching.matches])
    alike = similarities(found[..., :2], actual[..., :2], areas, truth.sigmas)
    right = (alike >= GOOD_KEYPOINT) & (actual[..., 2] > 0)
    return found[..., 2].ravel(), right.ravel()


def rounded_up(score: float) -> float:
    """A threshold with four digits: not below, so that nothing comes in that was kept out."""
    return min(float(np.ceil(round(score * 1e4, 6)) / 1e4), 1.0)


def write_thresholds(
    source: Path, target: Path, thresholds: Thresholds, *, half: bool, group_threshold: float | None = None
) -> None:
    """The checkpoint `source` with these thresholds in its `ModelSpec`, as `target`; `half` stores float16 weights.

    `group_threshold` is that of DAC's similarity; None leaves it as it is.
    """
    checkpoint = load_checkpoint(source)
    changes = {
        "score_threshold": rounded_up(thresholds.person.score),
        "keypoint_threshold": rounded_up(thresholds.keypoint.score),
    }
    decode = checkpoint.spec.decode.model_copy(update=changes)
    spec = checkpoint.spec.model_copy(update={"decode": decode})
    if group_threshold is not None:
        spec = with_group_threshold(spec, group_threshold)
    save_checkpoint(target, checkpoint.state_dict, spec, metadata=checkpoint.metadata, half=half)


def with_group_threshold(spec: ModelSpec, threshold: float) -> ModelSpec:
    """The specification with another threshold of DAC's similarity."""
    nets = spec.pose_nets.model_copy(update={"group_threshold": threshold})
    return spec.model_copy(update={"pose_nets": nets})
