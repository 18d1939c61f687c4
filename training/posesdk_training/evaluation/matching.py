"""Which result is which person, and how many persons are found."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk_training.evaluation.backends import Results, Setting, new_evaluation
from posesdk_training.evaluation.ground_truth import GroundTruth

__all__ = ["LARGE", "TALL", "Matching", "Recall", "match_results", "recall"]

Person = dict[str, Any]

TALL = 0.5
"""Share of the image's height above which a person counts as tall."""
LARGE = 96.0**2
"""Area above which a person counts as large, in square px of the image: COCO's bound."""
WHOLE = 0.75
"""Share of the keypoints that are labelled from which a person counts as whole, not cut off or hidden."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Results matched to labelled persons at OKS 0.5; results on ignored persons are left out.

    `scores` (D,) and whether each is `right` (D,); `matches` pairs right results with their annotations, `wrong` are
    the others; `missed` are the persons without a match; `persons` counts all that are to be found.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    matches: tuple[tuple[Person, Person], ...]
    persons: int
    wrong: tuple[Person, ...] = ()
    missed: tuple[Person, ...] = ()


def match_results(truth: GroundTruth, results: Results, *, threshold: float = 0.0) -> Matching:
    """COCO's greedy matching of results to persons, one to one by descending score.

    Only results that score at least `threshold` are there, of those the best 20 an image.
    """
    kept = [result for result in results if result["score"] >= threshold]
    annotations = truth.tree["annotations"]
    scores: list[float] = []
    right: list[bool] = []
    matches, wrong, missed = [], [], []
    persons = 0
    for image in _matched(truth, kept):
        persons += int(np.sum(image["gtIgnore"] == 0))
        rows = zip(image["dtIds"], image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True)
        for number, score, match, ignored in rows:
            if ignored:
                continue
            scores.append(score)
            right.append(bool(match > 0))
            if match > 0:
                matches.append((kept[int(number) - 1], annotations[int(match) - 1]))
            else:
                wrong.append(kept[int(number) - 1])
        people = zip(image["gtIds"], image["gtMatches"][0], image["gtIgnore"], strict=True)
        missed += [annotations[int(number) - 1] for number, match, ignored in people if not ignored and match <= 0]
    return Matching(
        np.array(scores), np.array(right, dtype=np.bool_), tuple(matches), persons, tuple(wrong), tuple(missed)
    )


def _matched(truth: GroundTruth, results: Results) -> list[dict[str, Any]]:
    """What matches what at OKS 0.5, by numbers from 1, of every image with persons or results."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = new_evaluation(truth, results, Setting(thresholds=(0.5,), areas=((0.0, 1e10),)))
        evaluation.evaluate()
    return [image for image in evaluation.evalImgs if image is not None]


@dataclass(frozen=True, slots=True)
class Recall:
    """Labelled persons that are found at OKS 0.5, out of all of a `group`, at scores of at least `threshold`."""

    group: str
    found: int
    persons: int
    threshold: float

    @property
    def share(self) -> float | None:
        """Part of the group that is found; None of a group without persons."""
        return self.found / self.persons if self.persons else None


def recall(truth: GroundTruth, results: Results, *, threshold: float) -> dict[str, Recall]:
    """How many labelled persons are found: of "all", and of the "large", "large_whole" and "tall" ones.

    Large ones have an area above 96 x 96 px, and are whole where at least three quarters of their keypoints are
    labelled; tall ones have a box of more than half the height of the image. Images whose height the annotations do not
    give have no tall persons.
    """
    matching = match_results(truth, results, threshold=threshold)
    found = [person for _, person in matching.matches]
    everybody = [*found, *matching.missed]
    images = truth.images

    def is_tall(person: Person) -> bool:
        return bool(person["bbox"][3] > TALL * images[person["image_id"]].get("height", np.inf))

    def is_large(person: Person) -> bool:
        return bool(person["area"] > LARGE)

    def is_whole(person: Person) -> bool:
        return bool(sum(mark > 0 for mark in person["keypoints"][2::3]) >= WHOLE * len(truth.keypoints))

    groups: dict[str, Callable[[Person], bool]] = {
        "all": lambda person: True,
        "large": is_large,
        "large_whole": lambda person: is_large(person) and is_whole(person),
        "tall": is_tall,
    }
    return {
        name: Recall(name, sum(map(belongs, found)), sum(map(belongs, everybody)), threshold)
        for name, belongs in groups.items()
    }
