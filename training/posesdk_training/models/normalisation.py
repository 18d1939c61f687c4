"""The normalisation of the network's input, (level / 255 - mean) / deviation, and weights that take part in it."""

import copy

import torch

from posesdk.spec import InputSpec
from posesdk_training.models.build import PoseModel

__all__ = ["LEVELS", "renormalise", "take_levels"]

LEVELS = 255.0


@torch.no_grad()
def take_levels(model: PoseModel) -> PoseModel:
    """A copy that computes the same from the levels 0..255 themselves: its first convolution divides by the deviation.

    For models whose mean is 0. With any other the border, which is 0 once normalised, would not be 0 among the levels.
    """
    if any(model.spec.input.mean):
        raise ValueError(f"model {model.spec.name} has the mean {model.spec.input.mean}, not 0, to be taken off first")
    taking = copy.deepcopy(model)
    convolution, _ = taking.backbone.first_layer
    convolution.weight /= LEVELS * _channels(model.spec.input.std, convolution.weight)
    return taking


@torch.no_grad()
def renormalise(model: PoseModel, source: InputSpec) -> None:
    """Fits a first layer that was trained with the normalisation of `source` to that of the model, in place.

    It then gives the same for the same image, except at its border, where the padding of 0 is another colour.
    """
    target = model.spec.input
    convolution, norm = model.backbone.first_layer
    weight = convolution.weight
    old_mean, old_std = _channels(source.mean, weight), _channels(source.std, weight)
    constant = (weight * (_channels(target.mean, weight) - old_mean) / old_std).sum(dim=(1, 2, 3))
    weight *= _channels(target.std, weight) / old_std
    assert norm.running_mean is not None
    norm.running_mean -= constant


def _channels(values: tuple[float, float, float], like: torch.Tensor) -> torch.Tensor:
    """(1, 3, 1, 1)."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
