"""How far the poses of one pipeline are from those of another on the same pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.oks import oks
from posesdk.pipeline import Estimate
from posesdk.skeleton import Skeleton

__all__ = ["Comparison", "Deviation", "Deviations", "compare_poses"]

SAME_PERSON = 0.5
"""The lowest OKS of two poses of one person: what COCO's AP50 takes for found."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One picture. `pairs` (P, 2) are the numbers of the same person among the wanted and the found poses.

    `missing` numbers of wanted, `extra` of found poses without a partner. Of each pair: `shifts` (P, K) in px of the
    image, `score_changes` (P,) found minus wanted, `similarities` (P,) OKS. `fallen` wanted people have their found
    pose below the threshold, `risen` found ones were below it.
    """

    pairs: Indices
    missing: Indices
    extra: Indices
    shifts: Floats
    score_changes: Floats
    similarities: Floats
    fallen: int = 0
    risen: int = 0

    @property
    def people(self) -> int:
        """Wanted persons above the threshold."""
        return len(self.pairs) + len(self.missing)

    @property
    def largest_shift(self) -> float:
        """Of a keypoint in px of the image, 0 without pairs."""
        return float(self.shifts.max(initial=0.0))


def compare_poses(wanted: Estimate, found: Estimate, *, threshold: float, sigmas: ArrayLike) -> Comparison:
    """Pairs every wanted person that scores `threshold` or more with the found pose that is most similar to it.

    The most similar pairs are made first, one to one, at an OKS of at least 0.5 over the box of the wanted pose. The
    found pose may have any score, and a found person above the threshold is `extra` only where no wanted pose of any
    score is left for it: who merely crosses the threshold is neither lost nor new. `sigmas` (K,).
    """
    similarity = _similarity(wanted, found, sigmas)  # (wanted, found)
    wanted_sure, found_sure = wanted.scores >= threshold, found.scores >= threshold
    pairs = _pair(similarity, wanted_sure, np.ones(len(found.scores), bool))
    wanted_left, found_left = wanted_sure.copy(), found_sure.copy()
    wanted_left[pairs[:, 0]] = False
    found_left[pairs[:, 1]] = False
    risen = _pair(similarity, ~wanted_sure, found_left)
    found_left[risen[:, 1]] = False
    first, second = pairs.T
    shifts = np.linalg.norm(found.keypoints[second].astype(np.float64) - wanted.keypoints[first], axis=2)
    return Comparison(
        pairs,
        missing=np.flatnonzero(wanted_left),
        extra=np.flatnonzero(found_left),
        shifts=shifts,
        score_changes=found.scores[second].astype(np.float64) - wanted.scores[first],
        similarities=similarity[first, second],
        fallen=int((found.scores[second] < threshold).sum()),
        risen=len(risen),
    )


@dataclass(frozen=True, slots=True)
class Deviation:
    """All pictures together; shifts in px of the image, of the keypoints of the people that both pipelines find.

    `mean_oks` counts a missing or an extra person as 0; it is 1 where there is nobody. `keypoints` has the median and
    99th percentile of the shift of each keypoint by name. `score_max` and `score_mean` are without sign. `fallen` and
    `risen` people cross the threshold, down and up; those of a good variant do so in both directions.
    """

    images: int
    people: int
    missing: int
    extra: int
    shift_median: float
    shift_p99: float
    shift_max: float
    score_max: float
    score_mean: float
    mean_oks: float
    keypoints: dict[str, dict[str, float]]
    fallen: int = 0
    risen: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON; every number is finite."""
        return asdict(self)


class Deviations:
    """Collects comparisons, picture by picture."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._pictures: list[tuple[str, Comparison]] = []

    def add(self, name: str, comparison: Comparison) -> None:
        """Takes one picture by its name."""
        self._pictures.append((name, comparison))

    def summary(self) -> Deviation:
        """What was collected until now."""
        found = [comparison for _, comparison in self._pictures]
        shifts = np.concatenate([np.zeros((0, len(self._skeleton))), *(one.shifts for one in found)])
        scores = np.abs(np.concatenate([np.zeros(0), *(one.score_changes for one in found)]))
        missing, extra = (sum(len(getattr(one, side)) for one in found) for side in ("missing", "extra"))
        everybody = len(shifts) + missing + extra
        alike = sum(float(one.similarities.sum()) for one in found)
        return Deviation(
            images=len(found),
            people=len(shifts) + missing,
            missing=missing,
            extra=extra,
            shift_median=_percentile(shifts, 50),
            shift_p99=_percentile(shifts, 99),
            shift_max=float(shifts.max(initial=0.0)),
            score_max=float(scores.max(initial=0.0)),
            score_mean=float(scores.mean()) if len(scores) else 0.0,
            mean_oks=alike / everybody if everybody else 1.0,
            keypoints={
                name: {"median": _percentile(column, 50), "p99": _percentile(column, 99)}
                for name, column in zip(self._skeleton.keypoints, shifts.T, strict=True)
            },
            fallen=sum(one.fallen for one in found),
            risen=sum(one.risen for one in found),
        )

    def worst(self, count: int) -> list[tuple[str, Comparison]]:
        """The pictures with the most missing and extra people first, then those with the largest shift."""

        def badness(picture: tuple[str, Comparison]) -> tuple[int, float]:
            comparison = picture[1]
            return len(comparison.missing) + len(comparison.extra), comparison.largest_shift

        return sorted(self._pictures, key=badness, reverse=True)[:count]


def _similarity(wanted: Estimate, found: Estimate, sigmas: ArrayLike) -> Floats:
    """OKS (W, F) of every found pose with every wanted one."""
    if not len(wanted.scores) or not len(found.scores):
        return np.zeros((len(wanted.scores), len(found.scores)))
    points = wanted.keypoints.astype(np.float64)
    # No side is taken as shorter than a pixel: a pose on a line has an area, too.
    areas = np.maximum(np.ptp(points, axis=1), 1.0).prod(axis=1)
    targets = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2)
    similarity: Floats = oks(found.keypoints, targets, areas, sigmas).T
    return similarity


def _pair(similarity: Floats, wanted: NDArray[np.bool_], found: NDArray[np.bool_]) -> Indices:
    """Pairs (P, 2) of the rows and columns that are chosen, the most similar first."""
    left = np.where(wanted[:, None] & found[None, :], similarity, -1.0)
    pairs: list[tuple[int, int]] = []
    while left.size and left.max() >= SAME_PERSON:
        row, column = (int(index) for index in np.unravel_index(left.argmax(), left.shape))
        pairs.append((row, column))
        left[row, :] = left[:, column] = -1.0
    return np.array(pairs, np.intp).reshape(-1, 2)


def _percentile(values: Floats, share: float) -> float:
    return float(np.percentile(values, share)) if values.size else 0.0
