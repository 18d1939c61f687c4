"""What people cost: the time of a frame against the number of people that were planted in it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from posesdk.benchmark.entries import Entry
from posesdk.benchmark.planted import plant_people
from posesdk.benchmark.rounds import LEAST, Budget, Lap, Rounds
from posesdk.benchmark.tables import NOTHING, Table, number_of
from posesdk.pipeline import Pipeline

__all__ = ["PeopleTimes"]

SHOWN = ("p50", LEAST)
"""Of the times; the least ones are those that other programs disturbed least."""


class PeopleTimes:
    """Entries that take turns at the same picture with several numbers of people planted in it.

    `refused`: entries that people cannot be planted into, or not so many, by number, and why.
    """

    def __init__(self, entries: Sequence[Entry], counts: Sequence[int]) -> None:
        self._entries, self._counts = entries, tuple(counts)
        self._taken: list[int] = []
        self.refused: dict[int, str] = {}
        self.rounds = Rounds([])

    def run(
        self, pipelines: Sequence[Pipeline], image: NDArray[np.uint8], budget: Budget, on_percent: Callable[[int], None]
    ) -> None:
        """All rounds; one pipeline for each entry."""
        works: list[Callable[[int], Lap]] = []
        for index, pipeline in enumerate(pipelines):
            try:
                own = [_work(plant_people(pipeline, count), image) for count in self._counts]
                for work in own:
                    work(0)
            except ValueError as error:
                self.refused[index] = str(error)
                continue
            works += own
            self._taken.append(index)
        self.rounds = Rounds(works)
        if works:
            self.rounds.run(budget, len(self._taken), on_percent)

    @property
    def is_empty(self) -> bool:
        """Whether no round was completed."""
        return not self.rounds.laps

    def to_dict(self, entry: int) -> dict[str, object] | None:
        """For JSON: ms by number of people, and of one more person, as median and as least time; None if refused."""
        if entry in self.refused:
            return None
        parts = ("total", "trunk", "around", "found")
        by_count = {
            str(count): {name: {part: self._time(work, name, part) for part in SHOWN} for name in parts}
            for count, work in zip(self._counts, self._works_of(entry), strict=True)
        }
        person = {part: {"ms": self._person(entry, part), "of_trunk": self._part(entry, part)} for part in SHOWN}
        return {"by_count": by_count, "person": person}

    def table(self) -> Table:
        """ms of a frame for each number, and what one more person costs; medians, and least times below them."""
        rows = []
        for index in self._taken:
            for part in SHOWN:
                times = [
                    (self._time(work, "total", part), self._time(work, "around", part))
                    for work in self._works_of(index)
                ]
                person, share = self._person(index, part), self._part(index, part)
                cost = (NOTHING, NOTHING) if person is None else (f"{person:.3f}", f"{share:.1%}")
                cells = (*(f"{total:.2f} ({around:.2f})" for total, around in times), f"{self._trunk(index, part):.2f}")
                rows.append((self._entries[index].name if part == SHOWN[0] else "", part, *cells, *cost))
        numbers = ("1 person" if count == 1 else f"{count} people" for count in self._counts)
        notes = (
            "the people are planted: the trunk runs, then maps drawn with exactly so many people replace its own",
            "in brackets: all but the trunk; without decoding the image and drawing",
            *self._shortages(),
        )
        headings = ("entry", "", *numbers, "trunk", "one more", "of the trunk")
        return Table(
            f"ms of a frame against people, {number_of(len(self.rounds.laps), 'round')}",
            headings,
            tuple(rows),
            notes,
            texts=2,
        )

    def _shortages(self) -> Iterator[str]:
        """Of each entry that finds fewer people than were planted: how many, and what that means for its times."""
        for index in self._taken:
            found = [round(self._time(work, "found", "p50")) for work in self._works_of(index)]
            short = [f"{had} of {count}" for had, count in zip(found, self._counts, strict=True) if had < count]
            if short:
                entry = self._entries[index]
                judged = "; it scores them by what it sees there, after all work on them" * _looks(entry)
                yield f"{entry.name}: {', '.join(short)} planted people reach the score threshold{judged}"

    def _works_of(self, entry: int) -> range:
        first = self._taken.index(entry) * len(self._counts)
        return range(first, first + len(self._counts))

    def _person(self, entry: int, part: str) -> float | None:
        """ms of one more person, None for a single number of people.

        Of p50 the median over the rounds of the slope through the times of a round; else the slope through the least
        times. Nobody does not count as a number: the first person also costs what the second graph takes for itself.
        """
        counts = [count for count in self._counts if count]
        if len(counts) < 2:
            return None
        works = [work for work, count in zip(self._works_of(entry), self._counts, strict=True) if count]
        times = np.stack([self.rounds.values(work, "around") for work in works])  # (counts, rounds)
        if part == LEAST:
            times = times.min(axis=1, keepdims=True)
        return float(np.median(np.polyfit(counts, times, 1)[0]))

    def _part(self, entry: int, part: str) -> float | None:
        """The same as a part of the trunk's time."""
        person = self._person(entry, part)
        return None if person is None else person / self._trunk(entry, part)

    def _trunk(self, entry: int, part: str) -> float:
        """ms; it is the same for any number of people."""
        return float(np.median([self._time(work, "trunk", part) for work in self._works_of(entry)]))

    def _time(self, work: int, name: str, part: str) -> float:
        return self.rounds.spread(work, name)[part]


def _work(pipeline: Pipeline, image: NDArray[np.uint8]) -> Callable[[int], Lap]:
    floor = pipeline.spec.decode.score_threshold

    def work(index: int) -> Lap:
        found = pipeline.run(image, floor)
        total = sum(found.timing.values())
        trunk = found.timing["trunk"]
        return {"total": total, "trunk": trunk, "around": total - trunk, "found": float((found.scores >= floor).sum())}

    return work


def _looks(entry: Entry) -> bool:
    """Whether its second graph sees every candidate, and a person's score comes from there."""
    return entry.bundle.spec.method == "dac"
