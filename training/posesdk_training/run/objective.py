"""What a training step minimises: a network and its losses as one module."""

import torch
from torch import Tensor, nn

from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch
from posesdk_training.losses.adaptation import adaptation_losses
from posesdk_training.losses.dense import dense_losses
from posesdk_training.losses.distillation import Teacher, distillation_losses
from posesdk_training.models.logocap import LogoCap

__all__ = ["Objective"]


class Objective(nn.Module):
    """One module, so that every process of a run reduces its gradients together.

    Gives the loss terms by name, already times their factors; their sum is minimised. The configuration's teacher,
    where there is one, is loaded here and is no part of the module. Raises CheckpointError for one that does not fit.
    """

    def __init__(self, model: LogoCap, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        self._teacher = None if config.teacher is None else Teacher(config.teacher, config.model, self._format)
        spec = config.model.input
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def teacher_notes(self) -> dict[str, str]:
        """Where the teacher comes from, for the checkpoint; empty without one."""
        return {} if self._teacher is None else self._teacher.notes

    def forward(self, batch: Batch, *, adaptation: bool) -> dict[str, Tensor]:
        """Loss terms of a batch; with `adaptation`, those of the local-global adaptation too."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        images = (batch.images.float() - mean) / std
        maps = self.model(images.contiguous(memory_format=self._format))
        losses = dense_losses(maps, batch, self._config.loss)
        if adaptation:
            losses |= adaptation_losses(self.model, maps, batch, self._config.loss)
        if self._teacher is not None and self._config.teacher is not None:
            taught = self._teacher(batch.images)
            losses |= distillation_losses(maps, taught, self._config.teacher, self._config.loss)
        return losses
