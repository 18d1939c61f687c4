"""Things that take turns, so that whatever slows the machine slows all of them and their ratios hold."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST", "PERCENTILES", "SPREAD", "Budget", "Lap", "Rounds"]

Lap = Mapping[str, float]
"""Figures of one frame, most of them ms of its stages."""
LEAST_ROUNDS = 3
PERCENT = 100
PERCENTILES = (50, 95, 99)
LEAST = "least"
SPREAD = (LEAST, *(f"p{share}" for share in PERCENTILES))
"""What is told of a figure's values."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long one part of the measurement may take: `seconds` for each entry, or exactly so many `rounds`."""

    seconds: float
    rounds: int | None = None


class Rounds:
    """Rounds in which each of several works is done for the same frame; what a round has begun and not ended is lost.

    A work is called with the number of the round, twice: the first time does not count, for it brings the caches and
    the backend back to this work from the one before. The order is another one in each round.
    """

    def __init__(self, works: Sequence[Callable[[int], Lap]]) -> None:
        self._works = works
        self.laps: list[tuple[Lap, ...]] = []

    def run(self, budget: Budget, entries: int, on_percent: Callable[[int], None]) -> None:
        """All rounds that the budget of so many entries allows. Raises what a work raises."""
        start, limit = time.perf_counter(), budget.seconds * entries
        while True:
            self._round(len(self.laps))
            done = (time.perf_counter() - start) / limit if limit > 0 else 1.0
            done = min(done, len(self.laps) / LEAST_ROUNDS) if budget.rounds is None else len(self.laps) / budget.rounds
            on_percent(min(int(PERCENT * done), PERCENT))
            if done >= 1:
                return

    def values(self, work: int, name: str) -> NDArray[np.float64]:
        """A figure of a work, round by round."""
        return np.array([laps[work][name] for laps in self.laps], np.float64)

    def spread(self, work: int, name: str) -> dict[str, float]:
        """The least value of a figure, which other programs disturbed least, p50, p95 and p99; of one round or more."""
        values = self.values(work, name)
        found = (values.min(), *np.percentile(values, PERCENTILES))
        return dict(zip(SPREAD, map(float, found), strict=True))

    def speed_up(self, work: int, name: str, first: int = 0) -> float:
        """How many times as fast as the `first` work it is: the median of the ratios of the rounds."""
        return float(np.median(self.values(first, name) / np.maximum(self.values(work, name), np.finfo(float).tiny)))

    def _round(self, number: int) -> None:
        laps: dict[int, Lap] = {}
        for position in range(len(self._works)):
            work = (position + number) % len(self._works)
            self._works[work](number)
            laps[work] = self._works[work](number)
        self.laps.append(tuple(laps[work] for work in range(len(self._works))))
