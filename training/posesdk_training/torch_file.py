"""Weights in files of `torch.save`, as other projects publish them: tensors are read, nothing is run."""

import os
import pickle
from collections.abc import Mapping

import torch
from torch import Tensor

from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import key_faults

__all__ = ["read_torch_weights"]

WRAPPERS = ("best_state_dict", "state_dict")
"""Where resumable checkpoints keep their weights, the preferred place first."""


def read_torch_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file by name, float ones as float32, without the prefix `module.` of distributed training.

    Takes a plain state_dict, or the `best_state_dict` or `state_dict` of a resumable checkpoint. Raises CheckpointError
    for a file that cannot be read, or that holds anything else.
    """
    content = _read(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"published checkpoint {path}: holds a {type(content).__name__} instead of a state_dict; "
            "give a file that torch.save wrote from a state_dict"
        )
    if strange := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"published checkpoint {path}: {key_faults(unexpected=strange)}, which are no tensors; "
            "give a file that torch.save wrote from a state_dict"
        )
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in content.items()
    }


def _read(path: str | os.PathLike[str]) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"published checkpoint {path}: no such file; check the path") from error
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, ValueError) as error:
        # The reader's own message advises to load without weights_only, which would run what the file says.
        raise CheckpointError(
            f"published checkpoint {path}: cannot be read as plain weights; it may be truncated, of another kind, or "
            "hold more than tensors. Download it again, or give a file that torch.save wrote from a state_dict"
        ) from error
