"""What the loading of a run's data costs, by set and by stage, and how many cores a trainer needs for it."""

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import SampleKey, StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.stage_clock import StageClock
from posesdk_training.run.loader_processes import LoadedBatches, start_loader_process
from posesdk_training.settings.learning import PhaseConfig

__all__ = ["MIXTURE", "STAGES", "DataProfile", "LoadingCost", "profile_data"]

STAGES = ("read+decode", "crop+warp", "colour", "targets", "collate")
MIXTURE = "mixture"
"""The row of all sets together."""
READ_AHEAD = 4
"""Batches that a loader process keeps ready, as in training."""


@dataclass(frozen=True, slots=True)
class LoadingCost:
    """Of one set or the mixture: mean CPU-ms of a sample by stage, and samples a second of one process by the wall."""

    name: str
    samples: int
    milliseconds: dict[str, float]
    wall_rate: float

    @property
    def total(self) -> float:
        """CPU-ms of a sample."""
        return sum(self.milliseconds.values())

    @property
    def rate(self) -> float:
        """Samples a second of CPU time: what one core of its own gives."""
        return 1000 / self.total


@dataclass(frozen=True, slots=True)
class DataProfile:
    """The costs of every set and of the mixture; with loader processes, the samples a second of all together.

    Images are read and decoded every time, as without `data.cache_images`; `skipped` could not be read.
    """

    costs: tuple[LoadingCost, ...]
    workers: int
    workers_rate: float | None
    sizes: dict[int, float]
    skipped: int

    @property
    def mixture(self) -> LoadingCost:
        """The row of all sets together."""
        return self.costs[-1]

    def cores(self, rate: float) -> int:
        """How many cores must load for a trainer that takes so many samples a second."""
        return math.ceil(rate / self.mixture.rate)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {
                "name": cost.name,
                "samples": cost.samples,
                "cpu_ms": {stage: round(value, 4) for stage, value in cost.milliseconds.items()},
                "cpu_ms_total": round(cost.total, 4),
                "samples_per_second_per_core": round(cost.rate, 2),
                "samples_per_second_wall": round(cost.wall_rate, 2),
            }
            for cost in self.costs
        ]
        return {
            "v": 1,
            "costs": rows,
            "workers": self.workers,
            "workers_samples_per_second": None if self.workers_rate is None else round(self.workers_rate, 2),
            "sizes": self.sizes,
            "skipped": self.skipped,
        }


def profile_data(config: TrainConfig, *, seconds: float, workers: int, phase: int = 0) -> DataProfile:
    """Loads for about so many seconds: each set of a phase and their mixture in this process, then with `workers`.

    Stages are measured in CPU time, so that a busy machine or a slow disk does not change them; the wall's rate shows
    what both take. Raises DataError for data that cannot be used, ValueError for a phase that is not there.
    """
    if phase >= len(config.phases):
        raise ValueError(f"there is no phase {phase}: the configuration has {len(config.phases)}, from 0")
    cv2.setNumThreads(0)  # as in a loader process
    torch.set_num_threads(1)
    chosen = config.phases[phase]
    names = [entry.name for entry in config.data.sets if chosen.mixture.get(entry.name, 0) > 0]
    rows = {name: chosen.model_copy(update={"mixture": {name: 1.0}}) for name in names} | {MIXTURE: chosen}
    data = config.data.model_copy(update={"cache_images": False, "workers": workers})
    alone = config.model_copy(update={"data": data, "phases": tuple(rows.values())})
    share = seconds / (len(rows) + (workers > 0))
    clock = StageClock()
    dataset = KeypointDataset(alone, clock)
    costs = tuple(_measure(dataset, clock, name, _keys(alone, index), seconds=share) for index, name in enumerate(rows))
    whole = chosen.model_copy(update={"until": 1.0})
    rate = _measure_workers(config.model_copy(update={"data": data, "phases": (whole,)}), share) if workers else None
    return DataProfile(costs, workers, rate, _shares(chosen), dataset.skipped)


def _shares(phase: PhaseConfig) -> dict[int, float]:
    total = sum(phase.sizes.values())
    return {size: weight / total for size, weight in phase.sizes.items()}


def _keys(config: TrainConfig, phase: int) -> Iterator[list[SampleKey]]:
    shares = _shares(config.phases[phase])
    for step in itertools.count():
        rng = np.random.default_rng((config.seed, 1, step))
        size = int(rng.choice(list(shares), p=list(shares.values())))
        yield [SampleKey(step * config.batch_size + item, size, phase) for item in range(config.batch_size)]


def _measure(
    dataset: KeypointDataset, clock: StageClock, name: str, keys: Iterator[list[SampleKey]], *, seconds: float
) -> LoadingCost:
    collate([dataset[key] for key in next(keys)])  # fills buffers, and whatever else is done once
    clock.reset()
    samples, began = 0, time.perf_counter()
    while samples == 0 or time.perf_counter() - began < seconds:
        batch = [dataset[key] for key in next(keys)]
        clock.start()
        collate(batch)
        clock.lap("collate")
        samples += len(batch)
    wall = time.perf_counter() - began
    milliseconds = {stage: 1000 * clock.seconds.get(stage, 0.0) / samples for stage in STAGES}
    return LoadingCost(name, samples, milliseconds, samples / wall)


def _measure_workers(config: TrainConfig, seconds: float) -> float:
    """Samples a second of several loader processes, once all of them are at work."""
    workers = config.data.workers
    endless = config.model_copy(update={"steps": 10**9, "accumulate": 1})
    loader: DataLoader[Any] = DataLoader(
        KeypointDataset(endless),
        batch_sampler=StepSampler(endless),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=start_loader_process,
        prefetch_factor=READ_AHEAD,
    )
    with closing(LoadedBatches(loader)) as batches:
        for _ in range(workers * READ_AHEAD):
            next(batches)
        count, began = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - began < seconds:
            next(batches)
            count += 1
        return count * config.batch_size / (time.perf_counter() - began)
