"""From which similarity on two poses are one person's (DAC, section 3.2), chosen on labelled photos.

The candidates of all centers are compared before they are grouped. Those that are a labelled person's, by the rule
that the similarity network learned with, say how often a threshold is right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.grouping import group_sigma, pose_similarity
from posesdk.oks import oks
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.evaluated_model import EvaluatedModel
from posesdk_training.evaluation.calibrate import best_threshold
from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.predict import read_stored
from posesdk_training.losses.pose_samples import owners
from posesdk_training.settings.learning import LossConfig

__all__ = [
    "GroupThreshold",
    "Pairs",
    "choose_group_threshold",
    "collect_pairs",
    "groups_by_similarity",
]

DIGITS = 4
"""Of a threshold, where so few tell the pairs apart as well as all do."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of candidates that are labelled persons', each pair in one image.

    `similarity` (M,) in 0..1 as the model groups by it, `same` (M,) whether both are one person's.
    """

    similarity: NDArray[np.float32]
    same: NDArray[np.bool_]

    def f1(self, threshold: float) -> float:
        """F1 of calling the pairs above `threshold` one person's; 0 where none is above it and none is one person's."""
        joined = self.similarity > threshold
        right = int(np.count_nonzero(joined & self.same))
        return 2 * right / max(int(np.count_nonzero(joined)) + int(np.count_nonzero(self.same)), 1)


@dataclass(frozen=True, slots=True)
class GroupThreshold:
    """The threshold of best F1 on `pairs`, beside the model's present one."""

    pairs: Pairs
    present: float
    chosen: float


def groups_by_similarity(spec: ModelSpec) -> bool:
    """Whether a model groups poses by a threshold of its similarity network."""
    return spec.method == "dac" and spec.pose_nets.similarity


def collect_pairs(
    model: EvaluatedModel,
    truth: GroundTruth,
    images: Sequence[tuple[int, Path]],
    *,
    on_image: Callable[[int], None] | None = None,
) -> Pairs:
    """All pairs of candidates in images (id, path) that are labelled persons', by OKS 0.5 with the closest one.

    `model` is one that `groups_by_similarity`. `on_image` is called with the number of images done. Raises SourceError
    for an image that cannot be read.
    """
    similarity, same = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    people = _people(truth)
    for done, (image_id, path) in enumerate(images, start=1):
        if image_id in people:
            keypoints, areas = people[image_id]
            letterbox, initial, outputs = model.pipeline.candidates(read_stored(path))
            fits = oks(letterbox.to_image(initial.keypoints), keypoints, areas, truth.sigmas)
            owner = owners(fits, LossConfig().identity_oks)
            known = np.flatnonzero(owner >= 0)
            first, second = (known[index] for index in np.triu_indices(len(known), 1))
            if len(first):
                sigma = group_sigma(model.spec)
                alike = pose_similarity(initial.keypoints, outputs["similarity"], sigma)
                similarity.append(alike[first, second])
                same.append(owner[first] == owner[second])
        if on_image is not None:
            on_image(done)
    return Pairs(np.concatenate(similarity), np.concatenate(same))


def _people(truth: GroundTruth) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Keypoints (G, K, 3) and areas (G,) of the persons with labelled keypoints, by image."""
    people: dict[int, list[tuple[NDArray[np.float64], float]]] = {}
    for person in truth.persons:
        keypoints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        if (keypoints[:, 2] > 0).any():
            people.setdefault(int(person["image_id"]), []).append((keypoints, float(person["area"])))
    return {
        image_id: (np.stack([keypoints for keypoints, _ in own]), np.array([area for _, area in own]))
        for image_id, own in people.items()
    }


def choose_group_threshold(pairs: Pairs, present: float, source: Path) -> GroupThreshold:
    """The threshold of best F1, in the middle between the least similarity that it joins and the next lower one.

    Raises DataError, which names the annotations `source`, where there are not both pairs of one and of two persons,
    and where every threshold joins wrong ones alone.
    """
    same = int(np.count_nonzero(pairs.same))
    if not 0 < same < len(pairs.same):
        raise DataError(
            f"cannot choose the grouping threshold on {source}: of {len(pairs.same)} pairs of poses that are labelled "
            f"persons', {same} are one person's, and both kinds are needed; give photos of several persons, train on, "
            "or leave the threshold as it is with --no-grouping"
        )
    lowest = float(np.nextafter(0, 1))  # a similarity of 0 is above no threshold
    best = best_threshold(pairs.similarity.astype(np.float64), pairs.same, same, lowest)
    if best is None or best.recall == 0:
        raise DataError(
            f"cannot choose the grouping threshold on {source}: the network finds none of the {same} pairs of one "
            "person's poses alike; train on, or leave the threshold as it is with --no-grouping"
        )
    below = float(pairs.similarity[pairs.similarity < best.score].max(initial=0))
    middle = round((best.score + below) / 2, DIGITS)
    return GroupThreshold(pairs, present, max((middle, below), key=pairs.f1))
