"""The time of each stage of a frame's way to its poses."""

import time

__all__ = ["STAGES", "Stopwatch"]

STAGES = ("preprocess", "trunk", "decode", "context", "adapt", "refine", "postprocess")
"""What `Estimate.timing` measures, in the order in which it happens."""


class Stopwatch:
    """Milliseconds from lap to lap, of each of several frames that are worked on together."""

    def __init__(self, frames: int = 1) -> None:
        self.laps = [dict.fromkeys(STAGES, 0.0) for _ in range(frames)]
        self._last = time.perf_counter()

    def lap(self, stage: str, *owners: int) -> None:
        """Adds the time since the lap before to a stage: an equal part for each of these frames, as often as named."""
        now = time.perf_counter()
        for frame in owners:
            self.laps[frame][stage] += (now - self._last) * 1e3 / len(owners)
        self._last = now
