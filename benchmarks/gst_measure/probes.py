"""What happens to every frame of one stream, seen from outside: at the pads of the element, and at the sink."""

import time
from typing import Any

import numpy as np

from posesdk.gst.bindings import Gst
from posesdk.gst.meta import record_from_buffer


class StreamProbe:
    """Watches one element and one sink; `summary` gives counts, and times in ms."""

    def __init__(self, element: Any, sink: Any) -> None:
        self._sink = sink
        self._entered_at = 0
        self.entered = 0
        self._added: list[float] = []
        self._latency: list[float] = []
        self._left: list[float] = []
        self._ages: list[float] = []
        self._model_ms: dict[int, float] = {}
        for pad, seen in (
            (element.get_static_pad("sink"), self._on_enter),
            (element.get_static_pad("src"), self._on_leave),
            (sink.get_static_pad("sink"), self._on_sink),
        ):
            pad.add_probe(Gst.PadProbeType.BUFFER, seen)

    def _on_enter(self, pad: Any, info: Any) -> Any:
        self.entered += 1
        self._entered_at = time.perf_counter_ns()
        return Gst.PadProbeReturn.OK

    def _on_leave(self, pad: Any, info: Any) -> Any:
        self._added.append((time.perf_counter_ns() - self._entered_at) / 1e6)
        record = record_from_buffer(info.get_buffer())
        if record is not None:
            self._ages.append(record.age_ns / 1e6)
            self._model_ms[record.index] = record.infer_ms
        return Gst.PadProbeReturn.OK

    def _on_sink(self, pad: Any, info: Any) -> Any:
        now = self._sink.get_clock().get_time() - self._sink.get_base_time()
        self._latency.append((now - info.get_buffer().pts) / 1e6)
        self._left.append(now / 1e9)
        return Gst.PadProbeReturn.OK

    def summary(self) -> dict[str, Any]:
        """Counts; frames a second; medians, 95th percentiles and maxima in ms."""
        quarter = max(1, len(self._latency) // 4)
        span = self._left[-1] - self._left[0] if len(self._left) > 1 else 0
        return {
            "entered": self.entered,
            "out": len(self._left),
            "fps": round((len(self._left) - 1) / span, 2) if span else 0.0,
            "with_poses": len(self._ages),
            "added_ms": spread(self._added),
            "latency_ms": spread(self._latency),
            "latency_first_quarter_ms": spread(self._latency[:quarter])["p50"],
            "latency_last_quarter_ms": spread(self._latency[-quarter:])["p50"],
            "age_ms": spread(self._ages),
            "model_ms": spread(list(self._model_ms.values())),
        }


def spread(values: list[float]) -> dict[str, float | None]:
    """Median, 95th percentile and maximum."""
    if not values:
        return {"p50": None, "p95": None, "max": None}
    p50, p95, most = np.percentile(values, (50, 95, 100))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "max": round(float(most), 2)}
