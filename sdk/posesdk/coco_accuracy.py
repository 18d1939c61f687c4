"""Keypoint AP and AR as COCO defines them, in numpy: what a device can measure on its own labelled pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.oks import oks
from posesdk.skeleton import Skeleton

__all__ = ["STATS", "CocoEvaluation", "KeypointAccuracy", "LabelledPersons"]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e5**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2))
"""Square px of the image: all, medium and large persons."""
MOST_PERSONS = 20
"""Found persons of a picture that count, the best first."""
STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""In COCO's order."""
CLOSEST = 1 - 1e-10
"""An OKS that passes every threshold."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPersons:
    """The annotations of one picture: `keypoints` (G, K, 3) x, y, visibility; `boxes` (G, 4) x, y, width, height.

    `areas` (G,) in square px; `ignored` (G,) need not be found, as crowds and persons without labelled keypoints;
    `crowds` (G,) may be found several times.
    """

    keypoints: Floats
    boxes: Floats
    areas: Floats
    ignored: Mask
    crowds: Mask


@dataclass(frozen=True, slots=True)
class KeypointAccuracy:
    """`stats` by name, 0 to 1 (one that nobody falls under is left out), on so many images and labelled persons.

    `keypoints`: of each keypoint by name, the mean similarity exp(-d^2 / (2 area (2 sigma)^2)) on persons that are
    found at OKS 0.5; one that is never labelled is left out.
    """

    stats: dict[str, float]
    images: int
    persons: int
    keypoints: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; every number is finite."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """One picture in one range of areas: partner (T, D) of each found person or -1, those that are `left_out` (T, D).

    `wanted` persons have to be found.
    """

    partners: NDArray[np.intp]
    left_out: Mask
    wanted: int


class CocoEvaluation:
    """Collects pictures in the order of their ids, which decides between equal scores; as pycocotools' COCOeval."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._sigmas = np.asarray(skeleton.sigmas, np.float64)
        self._scores: list[Floats] = []
        self._matches: list[list[_Matches]] = [[] for _ in AREAS]
        self._similar = np.zeros(len(skeleton))
        self._labelled = np.zeros(len(skeleton), np.intp)

    def add(self, labels: LabelledPersons, keypoints: ArrayLike, scores: ArrayLike) -> None:
        """Takes one picture, with the `keypoints` (D, K, 2) and `scores` (D,) of all that was found in it."""
        found = np.asarray(scores, np.float64)
        order = np.argsort(-found, kind="stable")[:MOST_PERSONS]
        points = np.asarray(keypoints, np.float64)[order]
        similarity = np.zeros((len(order), len(labels.areas)))
        if similarity.size:
            similarity = oks(points, labels.keypoints, labels.areas, self._sigmas, labels.boxes)
        areas = np.ptp(points, axis=1).prod(axis=1)
        self._scores.append(found[order])
        for bounds, matches in zip(AREAS, self._matches, strict=True):
            matches.append(_match(similarity, labels, areas, bounds))
        self._add_keypoints(points, labels, self._matches[0][-1])

    def summary(self) -> KeypointAccuracy:
        """The figures of what was collected."""
        curves = [_curves(self._scores, matches) for matches in self._matches]
        precision, recall = (np.stack(values) for values in zip(*curves, strict=True))  # (A, T, R), (A, T)
        parts = (
            *(precision[0], precision[0, 0], precision[0, 5], precision[1], precision[2]),
            *(recall[0], recall[0, 0], recall[0, 5], recall[1], recall[2]),
        )
        stats = {name: float(part.mean()) for name, part in zip(STATS, parts, strict=True) if np.min(part) >= 0}
        similar = zip(self._skeleton.keypoints, self._similar, self._labelled, strict=True)
        return KeypointAccuracy(
            stats,
            images=len(self._scores),
            persons=sum(matches.wanted for matches in self._matches[0]),
            keypoints={name: float(total / count) for name, total, count in similar if count},
        )

    def _add_keypoints(self, points: Floats, labels: LabelledPersons, matches: _Matches) -> None:
        found = np.flatnonzero((matches.partners[0] >= 0) & ~matches.left_out[0])
        persons = matches.partners[0, found]
        labelled = labels.keypoints[persons, :, 2] > 0
        squares = ((points[found] - labels.keypoints[persons, :, :2]) ** 2).sum(axis=2)
        scale = (labels.areas[persons] + np.spacing(1))[:, None] * (2 * self._sigmas) ** 2
        self._similar += (np.exp(-squares / scale / 2) * labelled).sum(axis=0)
        self._labelled += labelled.sum(axis=0)


def _match(similarity: Floats, labels: LabelledPersons, areas: Floats, bounds: tuple[float, float]) -> _Matches:
    """COCO's matching: the best found person chooses first, and a person to be ignored only where no other is left.

    `similarity` (D, G), `areas` (D,) of the found persons' boxes, `bounds` of the areas that count.
    """
    ignored = labels.ignored | _outside(labels.areas, bounds)
    count, everybody = similarity.shape
    partners = np.full((len(THRESHOLDS), count), -1)
    free = np.ones((len(THRESHOLDS), everybody), bool)
    enough = np.minimum(THRESHOLDS, CLOSEST)[:, None]
    rows = np.arange(len(THRESHOLDS))
    for index in range(count if everybody else 0):
        fits = (free | labels.crowds) & (similarity[index] >= enough)  # (T, G)
        fits &= ~ignored | ~(fits & ~ignored).any(axis=1, keepdims=True)
        values = np.where(fits, similarity[index], -1.0)
        best = everybody - 1 - values[:, ::-1].argmax(axis=1)  # of equal ones COCO takes the last
        taken = fits[rows, best]
        partners[taken, index] = best[taken]
        free[rows[taken], best[taken]] = False
    alone = partners < 0
    left_out = alone & _outside(areas, bounds)
    if everybody:
        left_out |= ~alone & ignored[partners]
    return _Matches(partners, left_out, int((~ignored).sum()))


def _outside(areas: Floats, bounds: tuple[float, float]) -> Mask:
    return (areas < bounds[0]) | (areas > bounds[1])


def _curves(scores: list[Floats], matches: list[_Matches]) -> tuple[Floats, Floats]:
    """Precision (T, R) at the recall points and highest recall (T,); -1 where nobody was to be found."""
    wanted = sum(one.wanted for one in matches)
    if not wanted:
        return np.full((len(THRESHOLDS), len(RECALLS)), -1.0), np.full(len(THRESHOLDS), -1.0)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    left_out = np.concatenate([one.left_out for one in matches], axis=1)[:, order]
    alone = np.concatenate([one.partners for one in matches], axis=1)[:, order] < 0
    right, wrong = ((kind & ~left_out).cumsum(axis=1).astype(np.float64) for kind in (~alone, alone))
    recall = right / wanted
    precision = right / (wrong + right + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    beyond = np.concatenate([precision, np.zeros((len(THRESHOLDS), 1))], axis=1)
    sampled = [row[np.searchsorted(points, RECALLS)] for row, points in zip(beyond, recall, strict=True)]
    highest = recall[:, -1] if recall.shape[1] else np.zeros(len(THRESHOLDS))
    return np.stack(sampled), highest
