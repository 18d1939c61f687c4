"""Where the time of a run goes: milliseconds per stage over many frames."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from posesdk.poses import Poses

__all__ = ["Profile", "StageTime"]

TOTAL = "total"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageTime:
    """Median and 95th percentile of one stage in ms."""

    stage: str
    median: float
    p95: float


class Profile:
    """Collects `Poses.timing`. The first frame, in which backends get ready, counts only where it is the only one."""

    def __init__(self) -> None:
        self._timings: list[dict[str, float]] = []
        self._people: list[int] = []

    def add(self, poses: Poses) -> None:
        """Takes the timing of one frame."""
        self._timings.append(dict(poses.timing))
        self._people.append(len(poses))

    @property
    def frames(self) -> int:
        """Number of frames that count."""
        return len(_counted(self._people))

    @property
    def people(self) -> float:
        """Mean number of people in a frame, 0 without frames."""
        counted = _counted(self._people)
        return sum(counted) / len(counted) if counted else 0.0

    def stages(self) -> list[StageTime]:
        """One entry per stage in the order in which they happen, then their sum, "total"; empty without frames."""
        counted = _counted(self._timings)
        if not counted:
            return []
        columns = {stage: [timing.get(stage, 0.0) for timing in counted] for stage in counted[0]}
        columns[TOTAL] = [sum(timing.values()) for timing in counted]
        return [
            StageTime(stage, float(np.median(values)), float(np.percentile(values, 95)))
            for stage, values in columns.items()
        ]


def _counted(values: list[T]) -> list[T]:
    return values[1:] or values
