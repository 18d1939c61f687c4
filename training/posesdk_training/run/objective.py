"""What a training step minimises: a network and its losses as one module."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch
from posesdk_training.data.views import View
from posesdk_training.losses.adaptation import adaptation_losses
from posesdk_training.losses.dense import dense_losses
from posesdk_training.losses.distillation import Teacher, distillation_losses
from posesdk_training.losses.pose_nets import pose_net_losses
from posesdk_training.models.build import PoseModel
from posesdk_training.models.dual_centers import DualCenters
from posesdk_training.models.maps import DenseMaps
from posesdk_training.models.resampling import on_cells
from posesdk_training.models.stems import DEPLOYED, Branch, kept_statistics
from posesdk_training.run.resting import dense_at_rest
from posesdk_training.settings.learning import PhaseConfig

__all__ = ["Objective", "Pass", "loss_names", "passes"]

STREAM = 4
"""Tells the draws of pose samples from others with the same seed."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What goes through the network at once: a `branch` of the `part`-th batch of a step; `last` of the step."""

    part: int
    batch: Batch
    branch: Branch
    last: bool


def passes(batches: Sequence[Batch], phase: PhaseConfig, device: torch.device) -> Iterator[Pass]:
    """The passes of a step, one after another, so that the memory needed is that of one; 4x is a batch's last.

    Batches are moved to `device` as they are needed.
    """
    for part, batch in enumerate(batches):
        moved = batch.to(device)
        views: list[Branch] = [view.branch for view in moved.views] if phase.dense else []
        for branch in (*views, DEPLOYED):
            yield Pass(part, moved, branch, last=branch == DEPLOYED and part + 1 == len(batches))


def loss_names(config: TrainConfig) -> tuple[str, ...]:
    """Every name that `Objective` may give to a loss of a run."""
    others = [branch.name for branch in config.branches if branch.name != DEPLOYED]
    of_branches = [_of_branch(name, branch) for branch in others for name in ("heatmap", "offset")]
    own = ("similarity", "confidence", "refinement") if config.model.method == "dac" else ("oks", "refined")
    return ("heatmap", "offset", *of_branches, *own, "distilled_heatmap", "distilled_offset")


def _of_branch(name: str, branch: Branch) -> str:
    return name if branch == DEPLOYED else f"{name}_{branch}"


class Objective(nn.Module):
    """One module, so that every process of a run reduces its gradients together.

    Gives the loss terms by name, already times their factors; their sum is minimised. The configuration's teacher,
    where there is one, is loaded here and is no part of the module. Raises CheckpointError for one that does not fit.
    """

    def __init__(self, model: PoseModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        self._teacher = None if config.teacher is None else Teacher(config.teacher, config.model, self._format)
        self._branches = {branch.name: branch for branch in config.branches}
        spec = config.model.input
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def teacher_notes(self) -> dict[str, str]:
        """Where the teacher comes from, for the checkpoint; empty without one."""
        return {} if self._teacher is None else self._teacher.notes

    def forward(
        self, batch: Batch, *, phase: PhaseConfig, branch: Branch = DEPLOYED, first_sample: int = 0
    ) -> dict[str, Tensor]:
        """Loss terms of what a branch sees of a batch; those of the 4x branch hold all but the others' dense terms.

        `first_sample` is the number in the run of the batch's first sample.
        """
        seen: Batch | View = batch
        if branch != DEPLOYED:
            seen = next(view for view in batch.views if view.branch == branch)
        maps = self._maps(seen.images, branch, dense=phase.dense)
        if branch != DEPLOYED and self._branches[branch].stem == "4x":
            maps = self._on_cells(maps, batch, seen, branch)
        losses = self._dense_losses(maps, seen, branch) if phase.dense else {}
        if branch == DEPLOYED and phase.adaptation:
            losses |= self._person_losses(maps, batch, first_sample)
        if branch == DEPLOYED and phase.dense and self._teacher is not None and self._config.teacher is not None:
            taught, centers = self._teacher(batch.images), self._config.model.center_count
            losses |= distillation_losses(maps, taught, self._config.teacher, self._config.loss, centers=centers)
        return losses

    def _maps(self, images: Tensor, branch: Branch, *, dense: bool) -> DenseMaps:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        normalised = (images.float() - mean) / std
        images = normalised.contiguous(memory_format=self._format)
        with nullcontext() if dense else dense_at_rest(self.model), kept_statistics(self.model, branch):
            maps: DenseMaps = self.model(images, self._branches[branch].used_stem)
        return maps

    def _on_cells(self, maps: DenseMaps, batch: Batch, seen: Batch | View, branch: Branch) -> DenseMaps:
        """Maps of the deployed stem for another branch's input, on the cells of that branch's targets."""
        scale = self._branches[branch].input_scale
        height, width = (round(scale * side) for side in batch.heatmaps.shape[2:])
        rows, columns = seen.heatmaps.shape[2:]
        return on_cells(maps, shown=(height, width), cells=(rows, columns))

    def _dense_losses(self, maps: DenseMaps, seen: Batch | View, branch: Branch) -> dict[str, Tensor]:
        losses = dense_losses(maps, seen, self._config.loss, centers=self._config.model.center_count)
        return {_of_branch(name, branch): self._branches[branch].weight * value for name, value in losses.items()}

    def _person_losses(self, maps: DenseMaps, batch: Batch, first_sample: int) -> dict[str, Tensor]:
        """Those of what looks at one person: LOGO-CAP's adaptation, or DAC's pose networks."""
        if not isinstance(self.model, DualCenters):
            return adaptation_losses(self.model, maps, batch, self._config.loss)
        numbers = range(first_sample, first_sample + len(batch.keypoints))
        seeds = [(self._config.seed, STREAM, number) for number in numbers]
        return pose_net_losses(self.model, maps, batch, self._config.loss, seeds=seeds)
