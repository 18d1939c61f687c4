"""How good center-offset poses would be with the best place near each keypoint: LOGO-CAP, appendix B, table 8.

A diagnosis that reads the annotations; it says nothing about a model's accuracy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posesdk.context import MESH_SIGMA
from posesdk_training.evaluation.backends import Results
from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.per_keypoint import similarities

__all__ = ["MATCH_RULES", "MatchRule", "UpperBound", "upper_bound"]

MatchRule = Literal["window_sum", "attainable"]
"""Which person a pose is compared with: the one with the largest sum of similarities over window and keypoints (the
paper's text), or with the largest mean over its labelled keypoints of the best similarity in the window."""
MATCH_RULES: tuple[MatchRule, ...] = ("window_sum", "attainable")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UpperBound:
    """The moved `results`, and the mean OKS of the poses to the persons they are compared with, before and after."""

    results: Results
    oks_before: float
    oks_after: float


def upper_bound(
    truth: GroundTruth,
    initial: Results,
    net_scales: Mapping[int, float],
    *,
    window: int = 11,
    match: MatchRule = "window_sum",
) -> UpperBound:
    """Every keypoint of the `initial` poses moved to the best of `window` x `window` places around it.

    The places lie sigma / 0.025 net px apart, as those of the keypoint expansion; `net_scales` are net px per image px
    by image id. Scores and the number of poses stay; keypoints that are not labelled, and poses on images without
    labelled persons, stay where they are. Raises ValueError for an even window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"upper bound: the window must be odd, so that it has a center, got {window}")
    people: dict[int, list[dict[str, Any]]] = {}
    for person in truth.persons:
        if not any(person["keypoints"][2::3]):
            continue  # counted as labelled, and is not
        people.setdefault(person["image_id"], []).append(person)
    moved: Results = []
    before, after = [], []
    for result in initial:
        there = people.get(result["image_id"], [])
        if not there:
            moved.append(result)
            continue
        points = np.array(result["keypoints"], np.float64).reshape(-1, 3)
        step = truth.sigmas / MESH_SIGMA / net_scales[result["image_id"]]
        places = _mesh(points[:, :2], step, window)
        best, start, end = _best_places(places, there, truth.sigmas, match)
        before.append(start)
        after.append(end)
        points[:, :2] = best
        moved.append(result | {"keypoints": points.ravel().tolist()})
    return UpperBound(moved, float(np.mean(before or [0.0])), float(np.mean(after or [0.0])))


def _mesh(points: Floats, step: Floats, window: int) -> Floats:
    """Places (window^2, K, 2) around points (K, 2), `step` (K,) px apart; the middle one is the point itself."""
    steps = np.arange(window) - window // 2
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 1, 2)  # (window^2, 1, 2)
    places: Floats = points + offsets * step[:, None]
    return places


def _best_places(
    places: Floats, people: list[dict[str, Any]], sigmas: Floats, match: MatchRule
) -> tuple[Floats, float, float]:
    """Best place (K, 2) of each keypoint for the person of the pose, and the OKS to that person before and after."""
    actual = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), -1, 3)  # (G, K, 3)
    areas = np.array([person["area"] for person in people], np.float64)[:, None]
    labelled = actual[..., 2] > 0
    similarity = similarities(places[:, None], actual[None, ..., :2], areas, sigmas) * labelled  # (window^2, G, K)
    if match == "window_sum":
        chosen = int(similarity.sum(axis=(0, 2)).argmax())
    else:
        chosen = int((similarity.max(axis=0).sum(axis=1) / labelled.sum(axis=1)).argmax())
    middle = len(places) // 2
    ours, mask = similarity[:, chosen], labelled[chosen]  # (window^2, K), (K,)
    # Of equally good places, as where all are too far to count, the one where the keypoint is.
    best = np.where(ours.max(axis=0) > ours[middle], ours.argmax(axis=0), middle)
    columns = np.arange(len(mask))
    before, after = ours[middle][mask].mean(), ours[best, columns][mask].mean()
    return places[best, columns], float(before), float(after)
