"""The training loop: Lightning Fabric for devices and processes, a plain loop for the rest."""

import json
import logging
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from posesdk_runtimes.errors import CheckpointError, DataError, DeviceUnavailableError, PoseSDKError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch, StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import LogoCap
from posesdk_training.objective import Objective
from posesdk_training.optimizer import WeightAverage, learning_rate, make_optimizer
from posesdk_training.run_log import ProgressBar, RunLog
from posesdk_training.torch_file import read_torch_weights

__all__ = ["NonFiniteLossError", "fit"]

logger = logging.getLogger(__name__)

STATE_FILE = "last.ckpt"
WEIGHTS_FILE = "last.safetensors"
BACKBONE = "backbone."
"""What the names of a backbone's weights start with in a model."""


class NonFiniteLossError(PoseSDKError):
    """The loss became NaN or infinite."""


class _Run:
    """State of one run: what a checkpoint holds and what a resumed run goes on from."""

    def __init__(self, config: TrainConfig, folder: Path, fabric: Fabric) -> None:
        self.config = config
        self.folder = folder
        self.fabric = fabric
        self.network = build_model(config.model)
        if config.init_from is not None and not (folder / STATE_FILE).exists():
            _initialise(self.network, config.init_from)
        self.average = WeightAverage(self.network, config.ema_decay)
        module = Objective(self.network, config)
        if config.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(module.parameters(), config.optimizer)
        self.module, self.wrapped_optimizer = fabric.setup(module, self.optimizer)
        average = self.average.state_dict()
        self.average.resume({key: value.to(fabric.device) for key, value in average.items()}, 0)
        self.step = 0

    def save(self) -> None:
        """Writes the resumable state and the averaged weights; the last good files stay until then."""
        if not self.fabric.is_global_zero:
            return
        state = {
            "config": self.config.model_dump_json(),
            "step": self.step,
            "model": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if scaling := self.fabric.strategy.precision.state_dict():  # of 16-mixed alone
            state["precision"] = scaling
        temporary = self.folder / f".{STATE_FILE}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / STATE_FILE)
        save_checkpoint(
            self.folder / WEIGHTS_FILE, self.average.state_dict(), self.config.model, metadata=self._notes()
        )

    def _notes(self) -> dict[str, str]:
        """How long the weights were trained, on what, and under which licence they stand."""
        sets = [entry.description or entry.name for entry in self.config.data.sets]
        return {
            "step": str(self.step),
            "samples": str(self.step * self.config.batch_size * self.fabric.world_size),
            "training_data": "; ".join(sets),
            "weights_licence": self.config.weights_licence or "not stated",
        }

    def resume(self) -> None:
        """Goes on from the folder's last checkpoint, if there is one."""
        if self.fabric.is_global_zero:
            for cut_off in self.folder.glob(f".{WEIGHTS_FILE}.*.tmp"):  # of a run that was killed while it saved
                cut_off.unlink()
        path = self.folder / STATE_FILE
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            spec = json.loads(state["config"])["model"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"cannot resume from {path}: it is not a whole checkpoint of a run; "
                "move it away to start anew, or give another run folder"
            ) from error
        if spec != json.loads(self.config.model_dump_json())["model"]:
            raise CheckpointError(
                f"cannot resume from {path}: it was written for another model specification; give another run folder"
            )
        self.network.load_state_dict(state["model"])
        self.average.resume(state["average"], state["step"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "precision" in state:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step = state["step"]
        logger.info("resumed %s at step %d of %d", path, self.step, self.config.steps)


def _initialise(network: LogoCap, path: Path) -> None:
    """Takes over every weight of a checkpoint whose name and shape fit; says how many did.

    A file that torch.save wrote may hold a backbone alone, such as HRNet's published ImageNet weights.
    """
    source = load_checkpoint(path).state_dict if path.suffix == ".safetensors" else read_torch_weights(path)
    target = network.state_dict()
    named = {f"{BACKBONE}{key}": value for key, value in source.items()} | source
    fitting = {key: value for key, value in named.items() if key in target and target[key].shape == value.shape}
    if not fitting:
        raise CheckpointError(f"cannot initialise from {path}: none of its {len(source)} tensors fits this model")
    network.load_state_dict(fitting, strict=False)
    logger.info("initialised %d of %d tensors from %s", len(fitting), len(target), path)


def fit(
    config: TrainConfig,
    folder: Path,
    *,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    stop_after: int | None = None,
) -> Path:
    """Trains to the end, or until `stop_after` steps, resuming what `folder` holds; gives the weights' path.

    The folder gets `last.ckpt` (resumable state), `last.safetensors` (averaged weights with their `ModelSpec`),
    `log.csv`, TensorBoard files and the resolved configuration. Raises DataError for data or a folder that cannot be
    used, DeviceUnavailableError, CheckpointError for a state that cannot be resumed, and NonFiniteLossError when the
    loss or its gradient is no number.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the run folder {folder}: {error.strerror}; give another with --run") from error
    fabric = _fabric(config, accelerator, devices, nodes)
    fabric.launch()
    fabric.seed_everything(config.seed, workers=False, verbose=False)
    run = _Run(config, folder, fabric)
    run.resume()
    if fabric.is_global_zero:
        (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n")
    _loop(run, min(config.steps, stop_after or config.steps))
    run.save()
    _leave(fabric)
    return folder / WEIGHTS_FILE


def _leave(fabric: Fabric) -> None:
    """Ends a run of several processes together: one that exits with its group open may abort, and takes all down."""
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _fabric(config: TrainConfig, accelerator: str, devices: int, nodes: int) -> Fabric:
    # A phase without the adaptation leaves its branch without gradients, which must not hold up the reduction.
    unused = any(not phase.adaptation for phase in config.phases)
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


def _loader(run: _Run) -> DataLoader[Any]:
    config, fabric = run.config, run.fabric
    sampler = StepSampler(config, start=run.step, rank=fabric.global_rank, world=fabric.world_size)
    return DataLoader(
        KeypointDataset(config),
        batch_sampler=sampler,
        num_workers=config.data.workers,
        collate_fn=collate,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if config.data.workers else None,
        pin_memory=fabric.device.type == "cuda",
    )


def _batches(run: _Run) -> Iterator[Batch]:
    try:
        yield from _loader(run)
    except DataError as error:
        # A loader process puts its traceback before the message.
        raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2].strip()) from error


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _loop(run: _Run, last_step: int) -> None:
    config, fabric = run.config, run.fabric
    saved = time.monotonic()
    run.module.train()
    first = fabric.is_global_zero
    samples = config.batch_size * fabric.world_size
    log = RunLog(run.folder, step=run.step, every=config.log_every, samples=samples) if first else None
    with log or nullcontext(), ProgressBar(run.step, last_step, shown=first) as advance:
        for batch in _batches(run):
            if run.step >= last_step:
                break
            figures = _train_step(run, batch.to(fabric.device))
            run.step += 1
            if log is not None:
                log.add(run.step, figures)
            advance(figures)
            # Between two rows of the log, so that a resumed run writes the rows of an uninterrupted one.
            if run.step % config.log_every == 0 and time.monotonic() - saved > 60 * config.checkpoint_minutes:
                run.save()
                saved = time.monotonic()


def _train_step(run: _Run, batch: Batch) -> dict[str, float]:
    config = run.config
    rate = learning_rate(*config.schedule_at(run.step))
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    losses = run.module(batch, adaptation=config.phase_at(run.step).adaptation)
    total = torch.stack(list(losses.values())).sum()
    values = {name: float(value.detach()) for name, value in losses.items()}
    _require_finite(run, total.detach(), f"the loss is not finite ({values})")
    run.optimizer.zero_grad(set_to_none=True)
    run.fabric.backward(total)
    if config.optimizer.clip_norm is not None:
        norm = run.fabric.clip_gradients(
            run.module, run.wrapped_optimizer, max_norm=config.optimizer.clip_norm, error_if_nonfinite=False
        )
        # The scaler of 16-mixed skips such a step, and takes a smaller scale.
        if norm is not None and config.precision != "16-mixed":
            _require_finite(run, norm, "the gradient is not finite")
    run.wrapped_optimizer.step()
    run.average.update(run.network)
    return {"learning_rate": rate, **values}


def _require_finite(run: _Run, value: Tensor, fault: str) -> None:
    if not bool(torch.isfinite(value)):
        raise NonFiniteLossError(
            f"step {run.step}: {fault}; the last checkpoint in {run.folder} is kept. "
            "Lower optimizer.learning_rate, set optimizer.clip_norm, or use precision 32-true"
        )
