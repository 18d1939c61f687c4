"""How exact each keypoint is, on the persons that are found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.matching import Matching

__all__ = ["PCK_SHARES", "KeypointFigures", "keypoint_figures", "similarities"]

PCK_SHARES = (0.2, 0.05)
"""A keypoint is correct (PCK) within this share of the longer side of the person's annotated box.

Definition: Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", PAMI 2013, section 6.
"""
OKS_THRESHOLDS = np.arange(50, 100, 5) / 100

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KeypointFigures:
    """One keypoint on persons that are found at OKS 0.5; shares of 1, None where it is never labelled.

    `labelled` persons have it in all, `matched` of them are found. Of these, `pck` is the share within each of
    `PCK_SHARES`, `oks` the mean similarity exp(-d^2 / (2 area (2 sigma)^2)), `oks_share` the mean over 0.50:0.05:0.95
    of the share at least so similar: what AP is to OKS, without false positives. `found` counts persons that are not
    found as wrong: the share of all labelled ones within 0.2.
    """

    name: str
    labelled: int
    matched: int
    pck: tuple[float | None, ...]
    oks: float | None
    oks_share: float | None
    found: float | None


def keypoint_figures(truth: GroundTruth, matching: Matching) -> list[KeypointFigures]:
    """The figures of each of the K keypoints, and last those of all of them together, named "all"."""
    count = len(truth.keypoints)
    found, actual = (
        np.array([pair[side]["keypoints"] for pair in matching.matches], np.float64).reshape(-1, count, 3)
        for side in (0, 1)
    )
    areas = np.array([person["area"] for _, person in matching.matches], np.float64)
    sides = np.array([max(person["bbox"][2:]) for _, person in matching.matches], np.float64)
    everybody = [person for _, person in matching.matches] + list(matching.missed)
    labels = np.array([person["keypoints"][2::3] for person in everybody]).reshape(-1, count) > 0

    similarity = similarities(found[..., :2], actual[..., :2], areas[:, None], truth.sigmas)  # (D, K)
    distance = np.hypot(*np.moveaxis(found[..., :2] - actual[..., :2], -1, 0)) / np.maximum(sides, 1e-9)[:, None]
    labelled = actual[..., 2] > 0

    def figures(name: str, columns: list[int]) -> KeypointFigures:
        mask = labelled[:, columns]
        apart, alike = distance[:, columns][mask], similarity[:, columns][mask]
        total = int(labels[:, columns].sum())
        return KeypointFigures(
            name,
            total,
            int(mask.sum()),
            tuple(_mean(apart <= share) for share in PCK_SHARES),
            _mean(alike),
            _mean(alike[:, None] >= OKS_THRESHOLDS),
            float((apart <= PCK_SHARES[0]).sum() / total) if total else None,
        )

    single = [figures(name, [index]) for index, name in enumerate(truth.keypoints)]
    return [*single, figures("all", list(range(count)))]


def similarities(found: Floats, actual: Floats, areas: Floats, sigmas: Floats) -> Floats:
    """Similarity exp(-d^2 / (2 area (2 sigma)^2)) of points (..., K, 2); `areas` (..., 1) in square px, `sigmas` (K,).

    Their mean over the labelled keypoints of a person is the OKS.
    """
    squares = ((found - actual) ** 2).sum(axis=-1)
    similarity: Floats = np.exp(-squares / (2 * (areas + np.spacing(1)) * (2 * sigmas) ** 2))
    return similarity


def _mean(values: NDArray[np.bool_] | Floats) -> float | None:
    return float(values.mean()) if values.size else None
