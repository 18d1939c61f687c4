"""What people cost: the time of a frame against the number of people that were planted in it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from posesdk.benchmark.entries import Entry
from posesdk.benchmark.planted import plant_people
from posesdk.benchmark.rounds import Budget, Lap, Rounds
from posesdk.benchmark.tables import NOTHING, Table
from posesdk.pipeline import Pipeline

__all__ = ["PeopleTimes"]


class PeopleTimes:
    """Entries that take turns at the same picture with several numbers of people planted in it."""

    def __init__(self, entries: Sequence[Entry], pipelines: Sequence[Pipeline], counts: Sequence[int]) -> None:
        """Raises ValueError for a pipeline or a number of people that `plant_people` refuses."""
        self._entries, self._counts = entries, tuple(counts)
        self._planted = [plant_people(pipeline, count) for pipeline in pipelines for count in counts]
        self.rounds: Rounds | None = None

    def run(self, image: NDArray[np.uint8], budget: Budget, on_percent: Callable[[int], None]) -> None:
        """All rounds. Raises ValueError where a network's input has no room for so many."""
        works = [_work(pipeline, image) for pipeline in self._planted]
        for work in works:
            work(0)
        self.rounds = Rounds(works)
        self.rounds.run(budget, len(self._entries), on_percent)

    @property
    def is_empty(self) -> bool:
        """Whether no round was completed."""
        return self.rounds is None or not self.rounds.laps

    def to_dict(self, entry: int) -> dict[str, object]:
        """For JSON: medians in ms by number of people."""
        by_count = {
            str(count): {name: self._median(work, name) for name in ("total", "trunk", "around", "found")}
            for count, work in zip(self._counts, self._works_of(entry), strict=True)
        }
        return {"by_count": by_count, "person_ms": self._person(entry), "person_of_trunk": self._part(entry)}

    def table(self) -> Table:
        """ms of a frame for each number, and what one more person costs."""
        assert self.rounds is not None
        rows = []
        for index, entry in enumerate(self._entries):
            works = self._works_of(index)
            cells = [f"{self._median(work, 'total'):.2f} ({self._median(work, 'around'):.2f})" for work in works]
            trunk = f"{self._trunk(index):.2f}"
            person, part = self._person(index), self._part(index)
            cost = NOTHING if person is None else f"{person:.3f}"
            rows.append((entry.name, *cells, trunk, cost, NOTHING if part is None else f"{part:.1%}"))
        headings = (
            "entry",
            *("1 person" if count == 1 else f"{count} people" for count in self._counts),
            "trunk",
            "one more",
            "of the trunk",
        )
        notes = (
            "the people are planted: the trunk runs, then maps drawn with exactly so many people replace its own",
            "in brackets: all but the trunk; without decoding the image and drawing",
        )
        return Table(f"ms of a frame against people, {len(self.rounds.laps)} rounds", headings, tuple(rows), notes)

    def _works_of(self, entry: int) -> range:
        return range(entry * len(self._counts), (entry + 1) * len(self._counts))

    def _person(self, entry: int) -> float | None:
        """ms of one more person: the median over the rounds of the slope through the numbers of a round."""
        assert self.rounds is not None
        if len(set(self._counts)) < 2:
            return None
        times = np.stack([self.rounds.values(work, "around") for work in self._works_of(entry)])  # (counts, rounds)
        return float(np.median(np.polyfit(self._counts, times, 1)[0]))

    def _part(self, entry: int) -> float | None:
        """The same as a part of the trunk's time."""
        person = self._person(entry)
        return None if person is None else person / self._trunk(entry)

    def _trunk(self, entry: int) -> float:
        """ms; it is the same for any number of people."""
        return float(np.median([self._median(work, "trunk") for work in self._works_of(entry)]))

    def _median(self, work: int, name: str) -> float:
        assert self.rounds is not None
        return float(np.median(self.rounds.values(work, name)))


def _work(pipeline: Pipeline, image: NDArray[np.uint8]) -> Callable[[int], Lap]:
    floor = pipeline.spec.decode.score_threshold

    def work(index: int) -> Lap:
        found = pipeline.run(image, floor)
        total = sum(found.timing.values())
        trunk = found.timing["trunk"]
        return {"total": total, "trunk": trunk, "around": total - trunk, "found": float(len(found.scores))}

    return work
