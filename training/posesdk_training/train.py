"""The training loop: Lightning Fabric for devices and processes, a plain loop for the rest."""

import gc
import logging
import math
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed as dist
from torch.utils.data import DataLoader

from posesdk_runtimes.errors import CheckpointError, DataError, DeviceUnavailableError
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch, StepSampler, collate
from posesdk_training.data.resident.source import resident_batches
from posesdk_training.files import write_text
from posesdk_training.run.deferred_step import StepTaker, Taken, step_taker
from posesdk_training.run.folder import WEIGHTS_FILE, lock_folder
from posesdk_training.run.interruption import RunInterrupted, StopRequest
from posesdk_training.run.loader_processes import LoadedBatches, start_loader_process
from posesdk_training.run.log import ProgressBar, RunLog
from posesdk_training.run.objective import loss_names
from posesdk_training.run.observation import Observation
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import NonFiniteLossError, OutOfMemoryFault

__all__ = ["NonFiniteLossError", "OutOfMemoryFault", "RunInterrupted", "fit", "loaded_batches", "make_fabric"]

logger = logging.getLogger(__name__)


def fit(
    config: TrainConfig,
    folder: Path,
    *,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    stop_after: int | None = None,
    max_minutes: float | None = None,
) -> Path:
    """Trains to the end, or until `stop_after` steps, resuming what `folder` holds; gives the weights' path.

    After `max_minutes`, loading included, the run stops at the end of a step and saves, to be gone on with later.

    The folder gets `last.ckpt` and `previous.ckpt` (resumable states), `last.safetensors` (averaged weights with their
    `ModelSpec`), `log.csv`, TensorBoard files, the resolved configuration, and what preview and validation give.
    SIGINT and SIGTERM end the step, save and raise RunInterrupted. Raises DataError for data or a folder that cannot
    be used, DeviceUnavailableError, CheckpointError for a state that cannot be resumed or saved, NonFiniteLossError
    when the loss or its gradient is no number, and OutOfMemoryFault.
    """
    deadline = time.monotonic() + 60 * (math.inf if max_minutes is None else max_minutes)
    fabric = make_fabric(config, accelerator=accelerator, devices=devices, nodes=nodes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the run folder {folder}: {error.strerror}; give another with --run") from error
    with _processes(fabric), _owned(folder, fabric):
        _train(config, folder, fabric, last_step=min(config.steps, stop_after or config.steps), deadline=deadline)
    return folder / WEIGHTS_FILE


def make_fabric(config: TrainConfig, *, accelerator: str = "auto", devices: int = 1, nodes: int = 1) -> Fabric:
    """Devices and processes of a run. Raises DeviceUnavailableError for what this machine does not have."""
    # What a phase or a branch leaves without gradients must not hold up the reduction.
    unused = len(config.branches) > 1 or any(not (phase.adaptation and phase.dense) for phase in config.phases)
    strategy = DDPStrategy(find_unused_parameters=unused) if devices * nodes > 1 else "auto"
    try:
        return Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=config.precision
        )
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise DeviceUnavailableError(
            f"cannot train on accelerator {accelerator!r}, {devices} devices on each of {nodes} nodes: {error} "
            "Give `--accelerator auto --devices 1`, or install a build of torch for that device"
        ) from error


@contextmanager
def _processes(fabric: Fabric) -> Iterator[None]:
    """Starts the processes of a run and ends them together: one that exits with its group open may abort.

    The group's threads are joined when its last user is gone. That has to be here, not at the end of the interpreter,
    where a thread that still runs ends the process with "terminate called without an active exception".
    """
    fabric.launch()
    try:
        yield
        fabric.barrier()
    finally:
        if fabric.world_size > 1:
            gc.collect()
            dist.destroy_process_group()


@contextmanager
def _owned(folder: Path, fabric: Fabric) -> Iterator[None]:
    """The run folder, locked by the first process."""
    with ExitStack() as stack:
        fault = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(lock_folder(folder))
            except DataError as error:
                fault = str(error)
        fault = fabric.broadcast(fault)
        if fault is not None:
            raise DataError(fault)
        yield


def _train(config: TrainConfig, folder: Path, fabric: Fabric, *, last_step: int, deadline: float) -> None:
    fabric.seed_everything(config.seed, workers=False, verbose=False)
    run = Run(config, folder, fabric)
    run.resume()
    if fabric.is_global_zero:
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")
    _loop(run, last_step, deadline)


def loaded_batches(run: Run) -> LoadedBatches | Generator[Batch, None, None]:
    """The batches of this process from the run's step on, `accumulate` a step; to be closed. Raises DataError.

    Loader processes start at once: one that is forked beside running threads may inherit a lock that nobody opens.
    """
    config, fabric = run.config, run.fabric
    if config.data.resident:
        place = {"start": run.step, "rank": fabric.global_rank, "world": fabric.world_size}
        return iter(resident_batches(config, fabric.device, **place))
    from posesdk_training.data.dataset import KeypointDataset  # with libraries that packed photos do without

    sampler = StepSampler(config, start=run.step, rank=fabric.global_rank, world=fabric.world_size)
    loader: DataLoader[Any] = DataLoader(
        KeypointDataset(config),
        batch_sampler=sampler,
        num_workers=config.data.workers,
        collate_fn=collate,
        worker_init_fn=start_loader_process,
        prefetch_factor=4 if config.data.workers else None,
        pin_memory=fabric.device.type == "cuda",
    )
    return LoadedBatches(loader)


def _loop(run: Run, last_step: int, deadline: float) -> None:
    config, fabric = run.config, run.fabric
    run.module.train()
    first = fabric.is_global_zero
    with ExitStack() as stack:
        batches = stack.enter_context(closing(loaded_batches(run)))
        stop = stack.enter_context(StopRequest())
        log = stack.enter_context(_log(run)) if first else None
        observation = None if log is None else Observation(run, log)
        advance = stack.enter_context(ProgressBar(run.step, last_step, shown=first))
        taker, saved = step_taker(run), time.monotonic()
        figures: dict[str, float] = {}
        while run.step < last_step and (of_step := list(islice(batches, config.accumulate))):
            taken = _taken(run, taker, of_step, log)
            run.step += 1
            _note(run, log, taken)
            figures = taken[-1][1] if taken else figures
            advance(figures)
            if asked := _agreed(fabric, stop.signal):
                _note(run, log, taker.settle())
                run.save()
                if run.step < config.steps:  # else there is only the last look to be had
                    _interrupt(run, asked)
            if observation is not None:
                observation.look(last=run.step == config.steps)
            if deadline < math.inf and _agreed(fabric, int(time.monotonic() > deadline)):
                logger.info("stopped after step %d of %d, as its time is up", run.step, config.steps)
                break
            if _agreed(fabric, int(time.monotonic() - saved > 60 * config.checkpoint_minutes)):
                _note(run, log, taker.settle())
                run.save()
                saved = time.monotonic()
        _note(run, log, taker.settle())
        if isinstance(batches, LoadedBatches) and batches.skipped:
            logger.warning("%d images or shards could not be read and were skipped; see above", batches.skipped)
    run.save()


def _note(run: Run, log: RunLog | None, taken: Taken) -> None:
    if log is None:
        return
    for step, figures in taken:
        log.add(step, figures)
    run.log_state = log.state()


def _log(run: Run) -> RunLog:
    samples, names = run.samples_per_step, loss_names(run.config)
    return RunLog(run.folder, names, step=run.step, every=run.config.log_every, samples=samples, state=run.log_state)


def _taken(run: Run, taker: StepTaker, batches: list[Batch], log: RunLog | None) -> Taken:
    """Figures of steps, once they are read; a run that has no memory for a step saves what it has."""
    try:
        return taker.take(batches)
    except OutOfMemoryFault:
        try:
            _note(run, log, taker.settle())
            run.save()
        except CheckpointError as error:
            logger.warning("%s", error)
        raise


def _agreed(fabric: Fabric, number: int | None) -> int:
    """The highest number that any process of the run has, None being 0: what they do, all do after the same step."""
    if fabric.world_size == 1:
        return number or 0
    numbers = torch.tensor(number or 0, device=fabric.device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return int(numbers)


def _interrupt(run: Run, number: int) -> NoReturn:
    run.fabric.barrier()
    raise RunInterrupted(
        f"stopped by {signal.Signals(number).name} after step {run.step} of {run.config.steps}, which is saved in "
        f"{run.folder}; give the same command to go on",
        number,
    )
