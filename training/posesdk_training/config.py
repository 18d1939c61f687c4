"""The training configuration: one YAML file, validated, with `key=value` overrides."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.settings.branches import BranchConfig, BranchName
from posesdk_training.settings.data import DataConfig
from posesdk_training.settings.faults import described_faults
from posesdk_training.settings.learning import LossConfig, ModelPart, OptimizerConfig, PhaseConfig, TeacherConfig
from posesdk_training.settings.observation import PreviewConfig, ValidationConfig
from posesdk_training.settings.overrides import apply_override
from posesdk_training.settings.recipe import read_recipe
from posesdk_training.settings.samples import AugmentConfig, TargetConfig
from posesdk_training.settings.section import Fraction, Positive, PositiveInt, Section
from posesdk_training.settings.tree import completed

__all__ = ["TrainConfig", "load_config"]


class TrainConfig(Section):
    """A whole training run. `weights_licence` goes into the checkpoint, and from there into the bundle.

    A step takes `accumulate` batches of `batch_size` samples on each device, and the mean of their gradients.
    `sync_batchnorm` takes norm statistics over all devices. `on_nonfinite: skip` leaves out a step whose loss or
    gradient is no number, and gives up after `max_skips` in a row. Losses are read off the device and checked every
    `check_every` steps: more than 1 keeps a GPU busy, and finds the step that went wrong a little later.
    `branches` are those of multi-scale training; "4x" is the one that is deployed. A run starts from the weights in
    `init_from`: from all that fit, or from those of the `init_parts`.
    """

    name: str
    model: ModelSpec
    seed: int = 0
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    targets: TargetConfig = TargetConfig()
    branches: tuple[BranchConfig, ...] = (BranchConfig(name="4x"),)
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: tuple[PhaseConfig, ...]
    steps: PositiveInt
    batch_size: PositiveInt = 12
    accumulate: PositiveInt = 1
    sync_batchnorm: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skips: PositiveInt = 20
    ema_decay: Fraction = 0.999
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    init_from: Path | None = None
    init_parts: Annotated[tuple[ModelPart, ...], Field(min_length=1)] | None = None
    weights_licence: str = ""
    checkpoint_minutes: Positive = 5.0
    log_every: PositiveInt = 50
    check_every: PositiveInt = 1
    teacher: TeacherConfig | None = None
    preview: PreviewConfig | None = None
    validation: ValidationConfig | None = None

    @model_validator(mode="after")
    def _check_fit(self) -> "TrainConfig":
        if self.loss.refined_window is not None and self.loss.refined_window % 2 == 0:
            raise ValueError(f"loss.refined_window {self.loss.refined_window} must be odd, so that it has a center")
        if self.loss.heatmap == "focal" and self.model.heads.activation != "sigmoid":
            raise ValueError("loss.heatmap focal trains the logits of a sigmoid: set model.heads.activation to sigmoid")
        if self.check_every > 1 and self.on_nonfinite == "skip":
            raise ValueError("on_nonfinite skip has to see every step: set check_every to 1")
        if self.log_every % self.check_every:
            raise ValueError(f"log_every {self.log_every} must be a multiple of check_every {self.check_every}")
        keypoints = self.model.skeleton.keypoints
        if strange := set(self.targets.center_keypoints) - set(keypoints):
            raise ValueError(f"targets.center_keypoints: {sorted(strange)} are none of the model's {keypoints}")
        return self

    @model_validator(mode="after")
    def _check_branches(self) -> "TrainConfig":
        names = [branch.name for branch in self.branches]
        if len(set(names)) < len(names) or "4x" not in names:
            raise ValueError(f"branches must be different ones, the deployed 4x among them; got {names}")
        if next(branch for branch in self.branches if branch.name == "4x").zoom != 1:
            raise ValueError("branches: 4x is what the others zoom from, its own zoom is 1")
        if len(names) > 1 and self.model.frame != "consistent":
            raise ValueError(
                f"branches: {names} agree on the cells of the consistent frame alone; set model.frame to consistent"
            )
        return self

    @model_validator(mode="after")
    def _check_method(self) -> "TrainConfig":
        if self.model.method != "dac":
            return self
        nets = self.model.pose_nets
        if self.model.frame != "consistent":
            raise ValueError(f"model.frame: method dac is for the consistent one, got {self.model.frame!r}")
        there = nets.similarity or nets.confidence or nets.refinement
        if not there and any(not phase.dense for phase in self.phases):
            raise ValueError("a phase without dense trains the pose networks alone, and model.pose_nets has none")
        if there and any(phase.adaptation for phase in self.phases) and self.targets.background_weight == 0:
            raise ValueError(
                "targets.background_weight 0 makes everything look unlabelled to the pose networks; set it above 0, or "
                "phases' adaptation to false"
            )
        return self

    @model_validator(mode="after")
    def _check_sets(self) -> "TrainConfig":
        names = [entry.name for entry in self.data.sets]
        if len(set(names)) < len(names):
            raise ValueError(f"data sets need names of their own, got {names}")
        if self.teacher is None and (bare := [entry.name for entry in self.data.sets if not entry.is_labelled]):
            raise ValueError(f"data sets {bare} have no annotations: name them, or give the run a teacher")
        return self

    @model_validator(mode="after")
    def _check_phases(self) -> "TrainConfig":
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"phases must end at rising fractions, the last at 1.0; got {ends}")
        names = {entry.name for entry in self.data.sets}
        for phase in self.phases:
            if unknown := sorted(set(phase.mixture) - names):
                raise ValueError(f"phase until {phase.until}: no data set named {unknown}; there are {sorted(names)}")
            if sum(phase.mixture.values()) <= 0 or sum(phase.sizes.values()) <= 0:
                raise ValueError(f"phase until {phase.until}: mixture and sizes need a positive weight")
            multiple = self.model.input.multiple
            if wrong := [size for size in phase.sizes if size % multiple]:
                raise ValueError(f"phase until {phase.until}: sizes {wrong} are not multiples of {multiple}")
        return self

    @property
    def training_stems(self) -> tuple[BranchName, ...]:
        """The stems that are trained beside the deployed one."""
        return tuple(branch.name for branch in self.branches if branch.used_stem == branch.name != "4x")

    def phase_at(self, step: int) -> PhaseConfig:
        """The phase that training step `step` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.until * self.steps:
                return phase
        return self.phases[-1]

    def schedule_at(self, step: int) -> tuple[int, int, OptimizerConfig]:
        """Step, length and settings of the learning-rate schedule that training step `step` (from 0) belongs to.

        The run's own, or that of a phase with a learning rate of its own, counted from the phase's start.
        """
        phase = self.phase_at(step)
        if phase.learning_rate is None:
            return step, self.steps, self.optimizer
        index = self.phases.index(phase)
        start = math.ceil(self.phases[index - 1].until * self.steps) if index else 0
        milestones = self.optimizer.milestones if phase.milestones is None else phase.milestones
        own = {"learning_rate": phase.learning_rate, "milestones": milestones}
        settings = self.optimizer.model_copy(update=own)
        return step - start, math.ceil(phase.until * self.steps) - start, settings


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """The configuration in a YAML file on top of its `base`, with `a.b=value` overrides (values are parsed as YAML).

    Relative paths of data are taken from `data.root`, by default the working directory. Raises DataError for a file
    that cannot be read or does not fit, naming the field; ValueError for an override that says nothing.
    """
    tree = read_recipe(path)
    for override in overrides:
        apply_override(tree, override)
    try:
        return TrainConfig.model_validate(completed(tree))
    except ValidationError as error:
        faults = described_faults(error, TrainConfig)
        raise DataError(f"the training configuration {path} does not fit: {faults}") from error
