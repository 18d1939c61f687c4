"""The pictures of an evaluation that say most: who was missed, what was found where nobody is, what was right."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.oks import oks
from posesdk_training.evaluation.backends import Results
from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.matching import Matching, match_results

__all__ = ["Case", "Chosen", "Found", "Labelled", "choose_cases", "read_cases"]

Person = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled person, and the OKS that it was found with, None where it was missed; `ignored` ones do not count."""

    annotation: Person
    oks: float | None
    ignored: bool

    @property
    def missed(self) -> bool:
        """Whether it should have been found and was not."""
        return self.oks is None and not self.ignored


@dataclass(frozen=True, slots=True)
class Found:
    """A result above the threshold: `right`, `wrong` (no person at OKS 0.5), or neither: on one that does not count.

    `nearest` is its highest OKS with any labelled person of the picture, 0 where there is none.
    """

    result: Person
    right: bool
    wrong: bool
    nearest: float

    @property
    def score(self) -> float:
        """The person's score."""
        return float(self.result["score"])


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: all labelled persons, all results above the threshold, the best first."""

    image_id: int
    path: Path
    labelled: tuple[Labelled, ...]
    found: tuple[Found, ...]

    @property
    def persons(self) -> tuple[Labelled, ...]:
        """Those that are to be found."""
        return tuple(person for person in self.labelled if not person.ignored)

    @property
    def missed(self) -> tuple[Labelled, ...]:
        """Persons that are to be found and were not, the largest first."""
        lost = [person for person in self.labelled if person.missed]
        return tuple(sorted(lost, key=lambda person: -float(person.annotation["area"])))

    @property
    def wrong(self) -> tuple[Found, ...]:
        """Results without a labelled person at OKS 0.5, the highest score first."""
        return tuple(entry for entry in self.found if entry.wrong)

    @property
    def matches(self) -> tuple[float, ...]:
        """OKS of the persons that were found, the lowest first."""
        return tuple(sorted(person.oks for person in self.persons if person.oks is not None))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A case with the reason that it is shown for."""

    case: Case
    reason: str


def read_cases(truth: GroundTruth, images: Path, results: Results, *, threshold: float) -> list[Case]:
    """Every image that is evaluated, by id, with its results of at least `threshold`, matched at OKS 0.5."""
    matching = match_results(truth, results, threshold=threshold)
    labelled = _labelled(truth, matching)
    right, wrong = {id(result) for result, _ in matching.matches}, {id(result) for result in matching.wrong}
    found = defaultdict(list)
    for result in sorted(results, key=lambda result: -result["score"]):
        if result["score"] >= threshold:
            persons = [person.annotation for person in labelled[int(result["image_id"])] if not person.ignored]
            entry = Found(result, id(result) in right, id(result) in wrong, _nearest(result, persons, truth.sigmas))
            found[int(result["image_id"])].append(entry)
    return [
        Case(number, path, tuple(labelled[number]), tuple(found[number])) for number, path in truth.image_list(images)
    ]


def choose_cases(cases: Sequence[Case], count: int) -> dict[str, list[Chosen]]:
    """At most `count` cases of each kind by its title, the most telling first; a kind without any is left out."""
    kinds: dict[str, tuple[Callable[[Case], Any], Callable[[Case], str]]] = {
        "Large people missed": (_largest_missed, _why_missed),
        "Most people missed": (lambda case: len(case.missed), _why_missed),
        "Wrong with the highest score": (lambda case: max((e.score for e in case.wrong), default=0.0), _why_wrong),
        "Least accurate": (lambda case: 1 - case.matches[0] if case.matches else 0.0, _why_inaccurate),
        "Best": (_goodness, _why_good),
    }
    chosen = {}
    for title, (weight, reason) in kinds.items():
        ranked = sorted((case for case in cases if weight(case)), key=weight, reverse=True)
        if ranked and count:
            chosen[title] = [Chosen(case, reason(case)) for case in ranked[:count]]
    return chosen


def _labelled(truth: GroundTruth, matching: Matching) -> dict[int, list[Labelled]]:
    similarity = {id(person): _similarity(result, person, truth.sigmas) for result, person in matching.matches}
    counted = {id(person) for person in truth.persons}
    labelled = defaultdict(list)
    for person in truth.tree["annotations"]:
        entry = Labelled(person, similarity.get(id(person)), id(person) not in counted)
        labelled[int(person["image_id"])].append(entry)
    return labelled


def _nearest(result: Person, persons: Sequence[Person], sigmas: NDArray[np.float64]) -> float:
    return max((_similarity(result, person, sigmas) for person in persons), default=0.0)


def _similarity(result: Person, person: Person, sigmas: NDArray[np.float64]) -> float:
    pose, target = (np.asarray(entry["keypoints"], np.float64).reshape(1, -1, 3) for entry in (result, person))
    return float(oks(pose, target, [person["area"]], sigmas)[0, 0])


def _largest_missed(case: Case) -> float:
    return float(case.missed[0].annotation["area"]) if case.missed else 0.0


def _goodness(case: Case) -> tuple[int, float] | None:
    """How many people are right, for pictures without a fault, then how well."""
    if not case.matches or case.missed or case.wrong:
        return None
    return min(len(case.matches), 3), float(np.mean(case.matches))


def _why_missed(case: Case) -> str:
    width, height = (round(side) for side in case.missed[0].annotation["bbox"][2:])
    return f"{_counted(case)} missed, the largest {width} x {height} px"


def _why_wrong(case: Case) -> str:
    first, others = case.wrong[0], len(case.wrong) - 1
    near = f"OKS {first.nearest:.2f} with the nearest person" if case.persons else "nobody is labelled"
    return f"score {first.score:.2f}, {near}" + (f", and {others} more" if others else "")


def _why_inaccurate(case: Case) -> str:
    return f"found with OKS {case.matches[0]:.2f} only"


def _why_good(case: Case) -> str:
    people = "the only person" if len(case.persons) == 1 else f"all {len(case.persons)} persons"
    return f"{people} found, OKS {np.mean(case.matches):.2f}"


def _counted(case: Case) -> str:
    return f"{len(case.missed)} of {len(case.persons)} {'person' if len(case.persons) == 1 else 'persons'}"
