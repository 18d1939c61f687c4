"""What an element has done so far."""

import json
import statistics
import threading
import time
from collections import deque
from typing import Any

__all__ = ["Stats"]

RECENT = 256
"""Inferences that the percentiles are taken from, and frames that the frame rate is."""


class Stats:
    """Counts of frames, safe to use from several threads; a frame is inferred, skipped or dropped, or still waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"frames": 0, "inferred": 0, "skipped": 0, "dropped": 0, "persons": 0}
        self._infer_ms: deque[float] = deque(maxlen=RECENT)
        self._left: deque[float] = deque(maxlen=RECENT)

    def count(self, what: str) -> None:
        """One more of `frames`, `skipped` or `dropped`."""
        with self._lock:
            self._counts[what] += 1

    def inferred(self, persons: int, infer_ms: float) -> None:
        """One more frame was inferred."""
        with self._lock:
            self._counts["inferred"] += 1
            self._counts["persons"] += persons
            self._infer_ms.append(infer_ms)

    def left(self) -> None:
        """A frame has left the element."""
        with self._lock:
            self._left.append(time.monotonic())

    def to_json(self, **more: Any) -> str:
        """Counts, percentiles of the inference time in ms, frames a second that leave, and what is passed."""
        with self._lock:
            counts, times, left = dict(self._counts), sorted(self._infer_ms), list(self._left)
        p50 = p95 = None
        if times:
            p50 = round(statistics.median(times), 3)
            p95 = round(times[min(len(times) - 1, int(0.95 * len(times)))], 3)
        span = left[-1] - left[0] if len(left) > 1 else 0.0
        fps = round((len(left) - 1) / span, 2) if span > 0 else None
        return json.dumps({**counts, "infer_ms_p50": p50, "infer_ms_p95": p95, "fps": fps, **more})
