"""Frames per second of a video, from the file to the poses, of models that take turns."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from peers.finder import Finder
from posesdk.sources import open_source

__all__ = ["Rate", "measure_rates"]

WARM_UP = 20
"""Frames: in them the backends get ready for the size, OpenVINO only once it has come often."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Frames per second of each round: `single`, one frame after the other, and `streamed`, work overlapped."""

    single: list[float] = field(default_factory=list)
    streamed: list[float] = field(default_factory=list)
    people: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, float]:
        """For JSON: medians, and the best rounds, which other programs disturbed least."""
        return {
            "single": float(np.median(self.single)),
            "streamed": float(np.median(self.streamed)),
            "best_single": max(self.single),
            "best_streamed": max(self.streamed),
            "people": float(np.mean(self.people)),
        }


def measure_rates(
    finders: Mapping[str, Finder], video: Path, frames: int, rounds: int, on_turn: Callable[[str], None]
) -> dict[str, Rate]:
    """`rounds` passes over the first frames of a video by each model in turns, reading of the file included.

    Before them, a few frames that do not count.
    """
    rates = {name: Rate() for name in finders}
    for finder in finders.values():
        _time(_single(finder, video), WARM_UP)
    for turn in range(1, rounds + 1):
        for name, finder in finders.items():
            on_turn(f"video, round {turn} of {rounds}: {finder.title}")
            rates[name].single.append(_time(_single(finder, video), frames)[0])
            with finder.stream(video) as stream:
                rate, people = _time((len(found) for found in stream), frames)
            rates[name].streamed.append(rate)
            rates[name].people.append(people)
    return rates


def _single(finder: Finder, video: Path) -> Iterable[int]:
    """People of each frame, one frame after the other."""
    with open_source(video) as frames:
        for frame in frames:
            yield len(finder.poses(frame.image).scores)


def _time(counts: Iterable[int], frames: int) -> tuple[float, float]:
    """Frames per second and people per frame of the first `frames`. Raises ValueError for an empty video."""
    start = time.perf_counter()
    people = list(islice(counts, frames))
    seconds = time.perf_counter() - start
    if not people:
        raise ValueError("the video has no frames to measure; name another one with --video")
    return len(people) / seconds, sum(people) / len(people)
