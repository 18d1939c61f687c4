"""Several frames in one call of `Detector.detect_batch`."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from posesdk.benchmark.entries import Entry
from posesdk.benchmark.frames import Frames
from posesdk.benchmark.rounds import Budget, Lap, Rounds
from posesdk.benchmark.tables import Table, number_of
from posesdk.detector import Detector

__all__ = ["BatchTimes"]

FRAME = "frame"


class BatchTimes:
    """Entries that take turns at batches of several sizes."""

    def __init__(
        self, entries: Sequence[Entry], detectors: Sequence[Detector], frames: Frames, sizes: Sequence[int]
    ) -> None:
        self._entries, self._sizes = entries, tuple(sizes)
        self._works = [_work(detector, frames, size) for detector in detectors for size in sizes]
        self.rounds = Rounds(self._works)

    def run(self, budget: Budget, on_percent: Callable[[int], None]) -> None:
        """All rounds, after one call each that does not count."""
        for work in self._works:
            work(0)
        self.rounds.run(budget, len(self._entries), on_percent)

    @property
    def is_empty(self) -> bool:
        """Whether no round was completed."""
        return not self.rounds.laps

    def to_dict(self, entry: int) -> dict[str, object]:
        """For JSON, by batch size."""
        return {str(size): self._figures(entry, position) for position, size in enumerate(self._sizes)}

    def table(self) -> Table:
        """A row for each entry and size."""
        rows = []
        for index, entry in enumerate(self._entries):
            for position, size in enumerate(self._sizes):
                found = self._figures(index, position)
                cells = (
                    f"{found['ms_per_frame']:.2f}",
                    f"{found['frames_per_second']:.1f}",
                    f"{found['speed_up']:.2f}x",
                )
                rows.append((entry.name if position == 0 else "", str(size), *cells))
        headings = ("entry", "batch", "ms a frame", "frames/s", "speed-up")
        notes = (f"speed-up: over a batch of {self._sizes[0]} of the same entry, from paired rounds",)
        return Table(f"Frames in batches, {number_of(len(self.rounds.laps), 'round')}", headings, tuple(rows), notes)

    def _figures(self, entry: int, position: int) -> dict[str, float]:
        first = entry * len(self._sizes)
        milliseconds = float(np.median(self.rounds.values(first + position, FRAME)))
        return {
            "ms_per_frame": milliseconds,
            "frames_per_second": 1e3 / milliseconds,
            "speed_up": self.rounds.speed_up(first + position, FRAME, first),
        }


def _work(detector: Detector, frames: Frames, size: int) -> Callable[[int], Lap]:
    images = [frames.load(index % len(frames))[0] for index in range(size)]

    def work(index: int) -> Lap:
        start = time.perf_counter()
        detector.detect_batch(images)
        return {FRAME: (time.perf_counter() - start) * 1e3 / size}

    return work
