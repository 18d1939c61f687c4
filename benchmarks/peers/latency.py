"""The time of a picture, of models that take turns at it: other programs on the machine then slow all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from peers.finder import STAGES, Found, Image
from posesdk.benchmark.rounds import Budget, Lap, Rounds

__all__ = ["Latency", "measure_latency"]

Work = Callable[[Image], Found]
FIGURES = ("total", *STAGES, "people")


@dataclass(frozen=True, slots=True)
class Latency:
    """FIGURES of every call that counts: ms from the decoded picture to its poses and of STAGES, and people found."""

    values: Mapping[str, NDArray[np.float64]]

    def percentile(self, percent: float, name: str = "total") -> float:
        """Of one of FIGURES."""
        return float(np.percentile(self.values[name], percent))

    @property
    def least(self) -> float:
        """ms of the fastest call, which other programs disturbed least."""
        return float(self.values["total"].min())

    @property
    def people(self) -> float:
        """Found in the mean."""
        return float(self.values["people"].mean())

    def to_dict(self) -> dict[str, float]:
        """For JSON: ms of the percentiles, of the least call and the medians of STAGES."""
        figures = {"p50": self.percentile(50), "p95": self.percentile(95), "least": self.least}
        return figures | {name: self.percentile(50, name) for name in STAGES} | {"people": self.people}


def measure_latency(
    works: Mapping[str, Work], images: Sequence[Image], rounds: int, on_percent: Callable[[int], None]
) -> dict[str, Latency]:
    """Each work at each image `rounds` times, in turns: all works at an image, all images, and again.

    A turn is two calls, of which the second counts: the first brings the caches back from another model, and sets
    backends up for a new size.
    """
    turns = Rounds([partial(_measure, work, images) for work in works.values()])
    turns.run(Budget(0.0, rounds * len(images)), len(works), on_percent)
    return {
        name: Latency({figure: turns.values(index, figure) for figure in FIGURES}) for index, name in enumerate(works)
    }


def _measure(work: Work, images: Sequence[Image], number: int) -> Lap:
    """A call for the image whose turn it is."""
    start = time.perf_counter()
    found = work(images[number % len(images)])
    return found.timing | {"total": 1e3 * (time.perf_counter() - start), "people": float(len(found.scores))}
