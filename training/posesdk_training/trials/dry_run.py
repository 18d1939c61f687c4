"""What a run would be like: its data, model, memory and time, found out without training and without a file."""

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch, SampleKey, collate
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.resident.source import resident_batches
from posesdk_training.data.statistics import SetStatistics, describe
from posesdk_training.models.cost import parameter_count, trunk_gmac
from posesdk_training.run.optimizer import learning_rate
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import Stepper
from posesdk_training.settings.learning import PhaseConfig
from posesdk_training.train import make_fabric

__all__ = ["DryRun", "PhaseCost", "SizeCost", "dry_run"]

TIMED_STEPS = 2
PATIENCE = 10.0
"""Seconds; a step that takes longer is timed once."""
RATES = 200
"""At how many points of a phase the learning rate is looked at."""
STATE_COPIES = 4
"""Weights, their average and two moments of the optimizer, in float32."""

Progress = Callable[[int], None]
BatchMaker = Callable[[list[SampleKey]], Batch]


@dataclass(frozen=True, slots=True)
class SizeCost:
    """Median seconds of a step at one crop side (net px), and of loading its samples in one process."""

    side: int
    share: float
    step_seconds: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """A phase from step `start` to before `end`; `peak_memory` in bytes at its largest crop.

    `branches` are those that the dense net is trained in, none where it rests. `rates` are the learning rates of its
    first step, at its highest, and of its last step. `hours` takes the slower of computing and loading.
    """

    start: int
    end: int
    mixture: dict[str, float]
    adaptation: bool
    branches: tuple[str, ...]
    rates: tuple[float, float, float]
    sizes: tuple[SizeCost, ...]
    peak_memory: int
    hours: float


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be like on one device. `gmac` is that of the dense maps of one image at the model's input.

    `parameters` are those of the model, `stem_parameters` those of the stems that it is trained with beside its own.
    """

    sets: tuple[SetStatistics, ...]
    parameters: int
    stem_parameters: int
    gmac: float
    device: str
    phases: tuple[PhaseCost, ...]
    samples_per_step: int
    checkpoint_bytes: int

    @property
    def hours(self) -> float:
        """The whole run, with one device."""
        return sum(phase.hours for phase in self.phases)


def dry_run(config: TrainConfig, folder: Path, *, accelerator: str = "auto", on_part: Progress | None = None) -> DryRun:
    """Measures a run on one device with a few real steps, in memory alone; `folder` is only looked at.

    `on_part` is called with the number of parts done, of one a data set and one a crop side of a phase. Raises what
    `fit` raises for data, weights and devices.
    """
    parts = 0

    def done() -> None:
        nonlocal parts
        parts += 1
        if on_part is not None:
            on_part(parts)

    fabric = make_fabric(config, accelerator=accelerator)
    fabric.launch()
    fabric.seed_everything(config.seed, workers=False, verbose=False)
    sets = []
    for entry in config.data.sets:
        if entry.annotations is not None and not config.data.pack:  # the rest is only known once it is read
            sets.append(describe(load_keypoint_set(entry, config.model.skeleton)))
        done()
    run = Run(config, folder, fabric)
    run.module.train()
    costs = _PhaseMeter(run, _batch_maker(run), done)
    phases = tuple(costs.measure(index) for index in range(len(config.phases)))
    parameters, stems = parameter_count(run.network), parameter_count(run.network.backbone.stems)
    return DryRun(
        sets=tuple(sets),
        parameters=parameters - stems,
        stem_parameters=stems,
        gmac=trunk_gmac(run.network),
        device=str(fabric.device),
        phases=phases,
        samples_per_step=run.samples_per_step,
        checkpoint_bytes=STATE_COPIES * 4 * parameters,
    )


def _batch_maker(run: Run) -> BatchMaker:
    config = run.config
    if config.data.resident:
        return resident_batches(config, run.fabric.device).batch
    from posesdk_training.data.dataset import KeypointDataset  # with libraries that packed photos do without

    dataset = KeypointDataset(config)
    return lambda keys: collate([dataset[key] for key in keys])


class _PhaseMeter:
    """Takes real steps on real samples; the run that they belong to is thrown away."""

    def __init__(self, run: Run, make_batch: BatchMaker, done: Callable[[], None]) -> None:
        self._run = run
        self._make_batch = make_batch
        self._done = done
        self._stepper = Stepper(run)

    def measure(self, index: int) -> PhaseCost:
        config, phase = self._run.config, self._run.config.phases[index]
        starts = _start(config, index), _start(config, index + 1)
        self._run.step = min(starts[0], config.steps - 1)
        _reset_peak(self._run.fabric.device)
        weights = sum(phase.sizes.values())
        sizes = tuple(
            self._measure_size(index, side, share / weights) for side, share in sorted(phase.sizes.items()) if share > 0
        )
        steps = starts[1] - starts[0]
        return PhaseCost(
            start=starts[0],
            end=starts[1],
            mixture=_shares(phase),
            adaptation=phase.adaptation,
            branches=tuple(branch.name for branch in config.branches) if phase.dense else (),
            rates=_rates(config, *starts),
            sizes=sizes,
            peak_memory=_peak(self._run.fabric.device),
            hours=steps * sum(size.share * self._seconds(size) for size in sizes) / 3600,
        )

    def _seconds(self, size: SizeCost) -> float:
        """Of a step; loading goes on beside it in the loader processes, or else comes first."""
        data = self._run.config.data
        workers = 0 if data.resident else data.workers
        return max(size.step_seconds, size.load_seconds / workers) if workers else size.step_seconds + size.load_seconds

    def _measure_size(self, index: int, side: int, share: float) -> SizeCost:
        config = self._run.config
        loads, times = [], []
        for turn in range(1 + TIMED_STEPS):
            started = time.perf_counter()
            batches = [self._batch(index, side, turn * config.accumulate + part) for part in range(config.accumulate)]
            loaded = time.perf_counter()
            self._stepper.take(batches)
            _wait(self._run.fabric.device)
            loads.append(loaded - started)
            times.append(time.perf_counter() - loaded)
            if times[-1] > PATIENCE:
                break
        self._done()
        # The first step allocates, and may choose its algorithms.
        return SizeCost(side, share, statistics.median(times[1:] or times), statistics.median(loads[1:] or loads))

    def _batch(self, index: int, side: int, number: int) -> Batch:
        first = number * self._run.config.batch_size
        keys = [SampleKey(first + item, side, index) for item in range(self._run.config.batch_size)]
        return self._make_batch(keys)


def _start(config: TrainConfig, index: int) -> int:
    """The first step of a phase; one past the last is the end of the run."""
    return math.ceil(config.phases[index - 1].until * config.steps) if index else 0


def _shares(phase: PhaseConfig) -> dict[str, float]:
    total = sum(phase.mixture.values())
    return {name: weight / total for name, weight in phase.mixture.items() if weight > 0}


def _rates(config: TrainConfig, start: int, end: int) -> tuple[float, float, float]:
    steps = sorted({*range(start, end, max(1, (end - start) // RATES)), max(start, end - 1)})
    rates = [learning_rate(*config.schedule_at(step)) for step in steps]
    return rates[0], max(rates), rates[-1]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    """Bytes: what torch has taken on a GPU, else what this process has held in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    import resource  # not on every system, and in bytes where it comes to this

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
