"""What a run consists of between two steps, and how it is saved and resumed.

Nothing draws from torch's random numbers after the weights are initialised: samples depend on the seed and their number
alone. So weights, their average, the optimizer and the step are the whole state.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from posesdk.manifest import FLOAT_VARIANT
from posesdk_runtimes.errors import CheckpointError, DataError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.evaluated_model import EvaluatedModel
from posesdk_training.models.build import build_model
from posesdk_training.models.stems import DEPLOYED, deployed_weights
from posesdk_training.models.synced_norm import synchronise_norms
from posesdk_training.run.folder import (
    BEST_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    clear_leftovers,
    has_state,
    read_state,
    set_aside,
    write_state,
)
from posesdk_training.run.objective import Objective, Pass
from posesdk_training.run.optimizer import WeightAverage, make_optimizer
from posesdk_training.run.resting import is_dense
from posesdk_training.run.start import start_from
from posesdk_training.torch_runtime import torch_pipeline

__all__ = ["Run"]

logger = logging.getLogger(__name__)


class Run:
    """State of one run. `step` counts finished steps, `best_ap` is the best validation so far.

    `log_state` holds the figures that wait for the next row of the log.
    """

    def __init__(self, config: TrainConfig, folder: Path, fabric: Fabric) -> None:
        self.config = config
        self.folder = folder
        self.fabric = fabric
        self.step = 0
        self.best_ap: float | None = None
        self.log_state: dict[str, Any] = {}
        self._saved_step: int | None = None
        self._dense_rests = False
        self.network = build_model(config.model, config.training_stems)
        if config.init_from is not None and not has_state(folder):
            start_from(self.network, config.init_from, config.init_parts)
        if config.sync_batchnorm:
            synchronise_norms(self.network)
        self.average = WeightAverage(self.network, config.ema_decay)
        module = Objective(self.network, config)
        self._teacher_notes = module.teacher_notes
        if config.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(module.parameters(), config.optimizer)
        self.module, self.wrapped_optimizer = fabric.setup(module, self.optimizer)
        self.average.to(fabric.device)

    @property
    def samples_per_step(self) -> int:
        """Samples of one step, in all processes."""
        return self.config.batch_size * self.config.accumulate * self.fabric.world_size

    def first_sample(self, part: int) -> int:
        """The number in the run of the first sample of this process's `part`-th batch in the present step."""
        batch = (self.step * self.fabric.world_size + self.fabric.global_rank) * self.config.accumulate + part
        return batch * self.config.batch_size

    def losses(self, one: Pass) -> dict[str, Tensor]:
        """Loss terms of a pass in the present step."""
        phase, first = self.config.phase_at(self.step), self.first_sample(one.part)
        losses: dict[str, Tensor] = self.module(one.batch, phase=phase, branch=one.branch, first_sample=first)
        return losses

    @torch.no_grad()
    def begin_step(self) -> bool:
        """To be called before each step. True where it changed the weights: a dense net that comes to rest does.

        It takes its averaged weights, which are those that are saved, so that the networks that go on learning see what
        they will see on a device; being equal, the average no longer moves them. Of those networks, which only begin,
        the average starts anew.
        """
        rested, self._dense_rests = self._dense_rests, not self.config.phase_at(self.step).dense
        if rested or not self._dense_rests:
            return False
        average = self.average.state_dict()
        for key, value in self.network.state_dict().items():
            if is_dense(key):
                value.copy_(average[key])
        if self.step == 0 or self.config.phase_at(self.step - 1).dense:
            self.average.restart()
        return True

    def save(self) -> None:
        """Writes the resumable state and the averaged weights, if steps were taken since; the first process alone does.

        Raises CheckpointError when they cannot be written; the last good files stay.
        """
        if not self.fabric.is_global_zero or self._saved_step == self.step:
            return
        state = {
            "config": self.config.model_dump_json(),
            "step": self.step,
            "model": self.network.state_dict(),
            "average": self.average.state_dict(),
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "log": self.log_state,
            "best_ap": self.best_ap,
        }
        if scaling := self.fabric.strategy.precision.state_dict():  # of 16-mixed alone
            state["precision"] = scaling
        write_state(self.folder, state)
        self._write_weights(WEIGHTS_FILE)
        self._saved_step = self.step

    def save_best(self, ap: float) -> None:
        """Keeps the averaged weights as the best so far, by their validation AP."""
        self.best_ap = ap
        self._write_weights(BEST_FILE, validation_ap=f"{ap:.6f}")

    def averaged_model(self) -> EvaluatedModel:
        """The averaged weights as they are, ready to be looked at on the run's device."""
        network = build_model(self.config.model)
        network.load_state_dict(deployed_weights(self.average.state_dict()))
        place = str(self.fabric.device)
        pipeline = torch_pipeline(network, device=place)
        return EvaluatedModel(self.config.name, FLOAT_VARIANT, pipeline, "torch", place, "fp32")

    def _write_weights(self, name: str, **notes: str) -> None:
        """With how long the weights were trained, on what, by which teacher, and under which licence they stand."""
        sets = [(entry.description or entry.name).replace(";", ",") for entry in self.config.data.sets]
        notes |= {
            "step": str(self.step),
            "samples": str(self.step * self.samples_per_step),
            "training_data": "; ".join(sets),
            "weights_licence": self.config.weights_licence or "not stated",
            **self._teacher_notes,
        }
        weights = deployed_weights(self.average.state_dict())
        save_checkpoint(self.folder / name, weights, self.config.model, metadata=notes)

    def resume(self) -> None:
        """Goes on from the folder's last good checkpoint, if there is one. The folder has to be locked.

        Raises CheckpointError for a state that cannot be gone on from, DataError for processes that do not share the
        folder.
        """
        found = read_state(self.folder, self.fabric.device)
        self._require_shared_folder(-1 if found is None else found[0]["step"])
        if self.fabric.is_global_zero:
            clear_leftovers(self.folder)
            if found is not None and found[1].name != STATE_FILE:
                set_aside(self.folder)
        if found is not None:
            state, path = found
            self._take_over(state, path)
            logger.info("resumed %s at step %d of %d", path, self.step, self.config.steps)
            self._complete_weights()

    def _require_shared_folder(self, step: int) -> None:
        """Every process has read before the first one changes a file, and all have read the same."""
        if self.fabric.world_size == 1:
            return
        first = self.fabric.broadcast(step)
        differing = self.fabric.all_reduce(torch.tensor(float(step != first)), reduce_op="sum")
        if float(differing) > 0:  # type: ignore[arg-type]
            raise DataError(
                f"the processes of this run see different checkpoints in {self.folder}; "
                "give a run folder that all nodes share"
            )

    def _take_over(self, state: dict[str, Any], path: Path) -> None:
        before, now = json.loads(state["config"]), json.loads(self.config.model_dump_json())
        if before["model"] != now["model"]:
            raise CheckpointError(
                f"cannot resume from {path}: it was written for another model specification; give another run folder"
            )
        stems = [_stems(tree) for tree in (before, now)]
        if stems[0] != stems[1]:
            raise CheckpointError(
                f"cannot resume from {path}: it was written with the stems of branches {', '.join(stems[0])}; keep "
                "them, or give another run folder, and its weights as init_from"
            )
        changed = sorted(key for key, value in now.items() if key in before and before[key] != value)
        if changed:
            logger.warning("the run in %s goes on with other settings of %s", self.folder, ", ".join(changed))
        self.network.load_state_dict(state["model"])
        self.average.resume(state["average"], state.get("updates", state["step"]))
        self.optimizer.load_state_dict(state["optimizer"])
        if "precision" in state:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step = self._saved_step = state["step"]
        self.log_state = state.get("log", {})
        self.best_ap = state.get("best_ap")

    def _complete_weights(self) -> None:
        """Writes the averaged weights once more where a kill came between the state and them."""
        if not self.fabric.is_global_zero:
            return
        path = self.folder / WEIGHTS_FILE
        try:
            step = int(load_checkpoint(path).metadata.get("step", "-1"))
        except (CheckpointError, ValueError):
            step = -1
        if step < self.step:
            self._write_weights(WEIGHTS_FILE)


def _stems(tree: dict[str, Any]) -> list[str]:
    """The stems that a run's configuration, as JSON, has weights for."""
    branches = tree.get("branches", [])
    return sorted({DEPLOYED, *(branch["name"] for branch in branches if branch.get("stem", "own") == "own")})
