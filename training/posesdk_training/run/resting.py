"""A dense net that rests while what looks at one person is trained (DAC, the second stage of training)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["dense_at_rest", "is_dense"]

PER_PERSON = ("pose_nets.", "joints_mlp.")
"""What the names of the weights start with that look at one person."""


def is_dense(key: str) -> bool:
    """Whether a weight or module of a model, by its name, belongs to the dense net."""
    return not key.startswith(PER_PERSON)


@contextmanager
def dense_at_rest(model: nn.Module) -> Iterator[None]:
    """The dense net computes without gradients, its norms by their running statistics, which stay as they are."""
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.training and is_dense(name)
    ]
    try:
        for norm in norms:
            norm.eval()
        with torch.no_grad():
            yield
    finally:
        for norm in norms:
            norm.train()
