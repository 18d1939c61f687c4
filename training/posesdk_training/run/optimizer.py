"""Optimizer, learning-rate schedule and the running average of weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from posesdk_training.settings.learning import OptimizerConfig

__all__ = ["WeightAverage", "learning_rate", "make_optimizer"]


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW; weight decay acts on matrices and kernels only, not on biases and norms."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, betas=config.betas)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of training step `step` (from 0) of `steps`."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        swing = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        rate *= config.final_fraction + (1 - config.final_fraction) * swing
    else:
        rate *= config.decay ** sum(step >= round(milestone * steps) for milestone in config.milestones)
    return rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))


class WeightAverage:
    """Exponential moving average of a model's floating-point state, norm statistics included.

    The decay rises as (t + 1) / (t + 20) from the first update, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model's present weights."""
        decay = min(self._decay, (self._updates + 1) / (self._updates + 20))
        self._updates += 1
        averaged: list[Tensor] = []
        present: list[Tensor] = []
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                averaged.append(self._state[key])
                present.append(value)
            else:
                self._state[key].copy_(value)
        torch._foreach_lerp_(averaged, present, 1 - decay)

    @property
    def updates(self) -> int:
        """How many updates were taken in."""
        return self._updates

    def restart(self) -> None:
        """From now on the average soon forgets what it held, as at the start; what no longer changes stays as it is."""
        self._updates = 0

    def to(self, device: torch.device) -> None:
        """Moves the averaged weights to the device that the model is on."""
        self._state = {key: value.to(device) for key, value in self._state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, by the model's keys."""
        return self._state

    def resume(self, state: dict[str, Tensor], updates: int) -> None:
        """Goes on from averaged weights saved after `updates` updates."""
        for key, value in state.items():
            self._state[key].copy_(value)
        self._updates = updates
