"""How long the graphs of pipelines take for the same pictures."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posesdk.pipeline import Pipeline
from posesdk_runtimes.base import Runtime, Tensor

__all__ = ["Speed", "measure_speed"]

ROUNDS = 5
"""Of each picture; the fastest is the one that other programs disturbed least."""
ENOUGH = 1.0
"""Seconds of runs of one picture after which a slow model is not run again."""


@dataclass(frozen=True, slots=True)
class Speed:
    """ms of both graphs and of a whole picture; `adapt` is that of all people in a picture together.

    `trunk_cpu` and `adapt_cpu` are ms of processor time in all threads, which other programs hardly disturb.
    """

    trunk: float
    adapt: float
    total: float
    trunk_cpu: float
    adapt_cpu: float


def measure_speed(pipelines: Sequence[Pipeline], images: Sequence[NDArray[np.uint8]]) -> list[Speed]:
    """The speed of each pipeline as a detector runs it: the median over the images of the fastest of some runs.

    The pipelines take turns at every image, so that other load slows all of them. The first run does not count: a
    backend gets ready for each new size in it.
    """
    watched = [_watched(pipeline) for pipeline in pipelines]
    laps: list[list[dict[str, float]]] = [[] for _ in pipelines]
    for image in images:
        for pipeline, kept in zip(watched, laps, strict=True):
            runs = list(_runs(pipeline, image))
            kept.append({stage: min(run[stage] for run in runs) for stage in runs[0]})
    return [Speed(**{stage: float(np.median([lap[stage] for lap in kept])) for stage in kept[0]}) for kept in laps]


class _CpuClock:
    """A graph whose runs add up their ms of processor time in `spent`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.inputs, self.outputs = runtime.inputs, runtime.outputs
        self.spent = 0.0

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        start = time.process_time()
        outputs = self._runtime.run(feeds)
        self.spent += (time.process_time() - start) * 1e3
        return outputs

    def close(self) -> None:
        self._runtime.close()


def _watched(pipeline: Pipeline) -> Pipeline:
    adapt = None if pipeline.adapt is None else _CpuClock(pipeline.adapt)
    return replace(pipeline, trunk=_CpuClock(pipeline.trunk), adapt=adapt)


def _runs(pipeline: Pipeline, image: NDArray[np.uint8]) -> Iterator[dict[str, float]]:
    """One to ROUNDS runs, after one that does not count."""
    _run_timed(pipeline, image)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        yield _run_timed(pipeline, image)
        if time.perf_counter() - start > ENOUGH:
            return


def _run_timed(pipeline: Pipeline, image: NDArray[np.uint8]) -> dict[str, float]:
    clocks = {"trunk_cpu": pipeline.trunk, "adapt_cpu": pipeline.adapt}
    before = {name: getattr(clock, "spent", 0.0) for name, clock in clocks.items()}
    timing = pipeline.run(image, pipeline.spec.decode.score_threshold).timing
    spent = {name: getattr(clock, "spent", 0.0) - before[name] for name, clock in clocks.items()}
    return {"trunk": timing["trunk"], "adapt": timing["adapt"], "total": sum(timing.values())} | spent
