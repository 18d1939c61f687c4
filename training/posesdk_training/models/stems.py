"""Stems of multi-scale training: one trunk, and a stem of its own for every input scale (DAC, Fig. 2).

The "4x" stem is the one that is deployed. "8x" takes an image twice as large to the same grid, "2x" one of half the
side; they exist in training alone, as `backbone.stems`, and are no part of what is exported or kept as a model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import nn

__all__ = [
    "DEPLOYED",
    "Branch",
    "Layer",
    "deployed_weights",
    "is_training_stem",
    "kept_statistics",
    "start_stems",
    "training_stem",
    "training_stems",
]

Branch = Literal["8x", "4x", "2x"]
"""A stem, by how much smaller than its input the maps are."""
DEPLOYED: Branch = "4x"

STEMS = "backbone.stems."
"""What the names of the training stems' weights start with in a model."""

Layer = tuple[nn.Conv2d, nn.BatchNorm2d]
"""A convolution and its batch norm."""
Value = TypeVar("Value")


def training_stem(widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU: (B, widths[0], H, W) -> (B, widths[-1], H', W')."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def training_stems(branches: Iterable[Branch], strides: Mapping[Branch, tuple[int, ...]], width: int) -> nn.ModuleDict:
    """A stem of `width` channels for each of `branches` but the deployed one; `strides` of its layers by branch."""
    wanted = dict.fromkeys(branch for branch in branches if branch != DEPLOYED)
    return nn.ModuleDict(
        {branch: training_stem((3, *[width] * len(strides[branch])), strides[branch]) for branch in wanted}
    )


@torch.no_grad()
def start_stems(stems: nn.ModuleDict, deployed: Sequence[Layer]) -> None:
    """Starts every layer of the training stems from the deployed stem's, the further ones from its last.

    A layer of another shape keeps what it has.
    """
    for stem in stems.values():
        convolutions = [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in stem.modules() if isinstance(layer, nn.BatchNorm2d)]
        for index, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
            source, source_norm = deployed[min(index, len(deployed) - 1)]
            if source.weight.shape == convolution.weight.shape:
                convolution.weight.copy_(source.weight)
                norm.load_state_dict(source_norm.state_dict())


def is_training_stem(key: str) -> bool:
    """Whether a weight of a model, by its name, belongs to a stem that is not deployed."""
    return key.startswith(STEMS)


def deployed_weights(state: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of a model's state without those of the stems that are not deployed."""
    return {key: value for key, value in state.items() if not is_training_stem(key)}


@contextmanager
def kept_statistics(model: nn.Module, branch: Branch) -> Iterator[None]:
    """Keeps the running statistics of a model's norms as they are while a `branch` goes through it.

    The norms still standardise by the batch. The training stems' own follow theirs, and the deployed branch updates
    all: the device sees its scale alone.
    """
    norms = [
        module
        for name, module in (model.named_modules() if branch != DEPLOYED else ())
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats and not is_training_stem(name)
    ]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
