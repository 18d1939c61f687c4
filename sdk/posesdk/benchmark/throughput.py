"""Frames a second through `Detector.stream`, for a while in turns, and for a long time without a break."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from posesdk.benchmark.entries import Entry
from posesdk.benchmark.frames import Frames
from posesdk.benchmark.sensors import Reading, Sensors
from posesdk.benchmark.tables import NOTHING, Table
from posesdk.detector import Detector

__all__ = ["LEAST_SECONDS", "Rates", "Sustained", "stream_rate", "sustained_table"]

SLICES = 3
"""Turns of each entry."""
TENTHS = 10
LEAST_SECONDS = 10.0
"""Of a sustained run: a tenth of it is then a second, in which even a large model takes frames enough for a rate."""
FEWEST = 2
"""Frames between which there is a time."""


def stream_rate(detector: Detector, frames: Frames, seconds: float) -> float:
    """Frames a second from the first poses to the last ones of a stream that runs for so long."""
    begin = time.perf_counter()
    times = [time.perf_counter() for _ in frames.stream(detector, seconds)]
    if len(times) < FEWEST:
        return len(times) / (time.perf_counter() - begin)
    return (len(times) - 1) / (times[-1] - times[0])


class Rates:
    """Frames a second of entries that take turns in slices of time, and what the sensors said meanwhile."""

    def __init__(self, detectors: Sequence[Detector], frames: Frames) -> None:
        self._detectors, self._frames = detectors, frames
        self._sensors = [Sensors(detector.info.device) for detector in detectors]
        self.turns: list[tuple[float, ...]] = []
        self.readings: list[list[Reading]] = [[] for _ in detectors]

    def run(self, seconds: float, on_slice: Callable[[int], None]) -> None:
        """All slices, together so many seconds for each entry."""
        for turn in range(SLICES):
            rates = []
            for index, detector in enumerate(self._detectors):
                self._sensors[index].read()
                rates.append(stream_rate(detector, self._frames, seconds / SLICES))
                self.readings[index].append(self._sensors[index].read())
                on_slice(turn * len(self._detectors) + index + 1)
            self.turns.append(tuple(rates))

    def rate(self, entry: int) -> float:
        """The median of the slices."""
        return float(np.median([turn[entry] for turn in self.turns]))

    def rate_up(self, entry: int) -> float:
        """How many times the frames of the first entry, paired slice by slice."""
        return float(np.median([turn[entry] / turn[0] for turn in self.turns]))

    def warmest(self, entry: int) -> float | None:
        """Degrees Celsius; None where it cannot be read."""
        return max((one.celsius for one in self.readings[entry] if one.celsius is not None), default=None)

    def watts(self, entry: int) -> float | None:
        """Mean over the slices; None where it cannot be read."""
        known = [one.watts for one in self.readings[entry] if one.watts is not None]
        return float(np.mean(known)) if known else None

    def to_dict(self, entry: int) -> dict[str, object]:
        """For JSON."""
        return {
            "frames_per_second": self.rate(entry),
            "rate_up": self.rate_up(entry),
            "celsius": self.warmest(entry),
            "watts": self.watts(entry),
        }


class Sustained:
    """One entry over a long time: frames a second of each tenth of it, and the sensors at the end of each."""

    def __init__(self, seconds: float, device: str) -> None:
        self.seconds = seconds
        self.rates: list[float] = []
        self.readings: list[Reading] = []
        self._sensors = Sensors(device)

    def run(self, detector: Detector, frames: Frames, on_tenth: Callable[[int], None]) -> None:
        """One stream for so long, from its first poses on; a run that is cut short keeps the tenths that were full."""
        length, count = self.seconds / TENTHS, 0
        begin = now = 0.0
        for number, _ in enumerate(frames.stream(detector, self.seconds)):
            now = time.perf_counter()
            if number == 0:
                begin = now
                self._sensors.read()
                continue
            while now > begin + length and len(self.rates) < TENTHS:
                self._close_tenth(count / length, on_tenth)
                begin, count = begin + length, 0
            count += 1
        if len(self.rates) < TENTHS and now > begin:  # the last one is a little shorter, by what the first poses took
            self._close_tenth(count / (now - begin), on_tenth)

    @property
    def drop(self) -> float:
        """Part of the frames of the first tenth that the last one is short of; below 0 where it has more."""
        return 1 - self.rates[-1] / self.rates[0] if self.rates and self.rates[0] else 0.0

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "seconds": self.seconds,
            "frames_per_second": self.rates,
            "drop": self.drop,
            "readings": [asdict(one) for one in self.readings],
        }

    def _close_tenth(self, rate: float, on_tenth: Callable[[int], None]) -> None:
        self.rates.append(rate)
        self.readings.append(self._sensors.read())
        on_tenth(len(self.rates))


def sustained_table(found: Sequence[tuple[Entry, Sustained]]) -> Table:
    """A row an entry: frames a second of each tenth, the drop, and how warm and fast the processor was."""
    tenths = [f"{TENTHS * (index + 1)} %" for index in range(TENTHS)]
    rows = tuple(
        (
            entry.name,
            *(f"{rate:.1f}" for rate in one.rates),
            *(NOTHING for _ in range(TENTHS - len(one.rates))),
            f"{one.drop:.1%}",
            _course([reading.celsius for reading in one.readings]),
            _course([reading.megahertz for reading in one.readings]),
            _course([reading.watts for reading in one.readings]),
        )
        for entry, one in found
    )
    title = f"Frames a second over {found[0][1].seconds:g} s, tenth by tenth"
    return Table(title, ("entry", *tenths, "drop", "°C", "MHz", "W"), rows, ("drop: of the first tenth to the last",))


def _course(values: Sequence[float | None]) -> str:
    """From the first tenth to the last."""
    known = [value for value in values if value is not None]
    return f"{known[0]:.0f}-{known[-1]:.0f}" if known else NOTHING
