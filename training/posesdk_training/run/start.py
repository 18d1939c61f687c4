"""Weights that a run starts from."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import PoseModel
from posesdk_training.models.normalisation import renormalise
from posesdk_training.models.stems import is_training_stem
from posesdk_training.run.resting import is_dense
from posesdk_training.settings.learning import ModelPart
from posesdk_training.torch_file import read_torch_weights

__all__ = ["start_from"]

logger = logging.getLogger(__name__)

BACKBONE = "backbone."
"""What the names of a backbone's weights start with in a model."""


def start_from(network: PoseModel, path: Path, parts: Sequence[ModelPart] | None = None) -> None:
    """Takes over every weight of a checkpoint whose name and shape fit, or those of some parts; says how many did.

    A file that torch.save wrote may hold a backbone alone, such as HRNet's published ImageNet weights. The stems of
    branches beside 4x, which no saved model has, start from that one's. A checkpoint of another normalisation of the
    input is fitted to that of the network. Raises CheckpointError if nothing fits, or
    nothing of one of the `parts`.
    """
    checkpoint = load_checkpoint(path) if path.suffix == ".safetensors" else None
    source = read_torch_weights(path) if checkpoint is None else checkpoint.state_dict
    target = network.state_dict()
    named = {f"{BACKBONE}{key}": value for key, value in source.items()} | source
    fitting = {key: value for key, value in named.items() if key in target and target[key].shape == value.shape}
    if not fitting:
        raise CheckpointError(f"cannot initialise from {path}: none of its {len(source)} tensors fits this model")
    if parts is not None:
        if missing := sorted(set(parts) - set(map(_part, fitting))):
            raise CheckpointError(
                f"cannot initialise {' and '.join(missing)} from {path}, as init_parts wants: of this model's tensors "
                f"there fit {_by_part(fitting, target)}"
            )
        fitting = {key: value for key, value in fitting.items() if _part(key) in parts}
    network.load_state_dict(fitting, strict=False)
    if checkpoint is not None and _sees_images(network, fitting):
        renormalise(network, checkpoint.spec.input)
    if not any(map(is_training_stem, fitting)):
        network.backbone.start_stems()
    logger.info("initialised %d of %d tensors from %s: %s", len(fitting), len(target), path, _by_part(fitting, target))


def _sees_images(network: PoseModel, names: Iterable[str]) -> bool:
    """Whether the first convolution is among the weights of these names."""
    first = network.backbone.first_layer[0].weight
    return any(network.get_parameter(name) is first for name in names if name.endswith("weight"))


def _part(key: str) -> ModelPart:
    """The part of a model that a weight, by its name, belongs to."""
    if not is_dense(key):
        return "adaptation"
    return "backbone" if key.startswith(BACKBONE) else "heads"


def _by_part(fitting: Iterable[str], target: Iterable[str]) -> str:
    """How many tensors of each part of a model fit."""
    fit, there = Counter(map(_part, fitting)), Counter(map(_part, target))
    return ", ".join(f"{part} {fit[part]} of {there[part]}" for part in get_args(ModelPart) if there[part])
