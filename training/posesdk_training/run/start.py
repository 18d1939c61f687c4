"""Weights that a run starts from."""

import logging
from pathlib import Path

from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import PoseModel
from posesdk_training.models.stems import is_training_stem
from posesdk_training.torch_file import read_torch_weights

__all__ = ["start_from"]

logger = logging.getLogger(__name__)

BACKBONE = "backbone."
"""What the names of a backbone's weights start with in a model."""


def start_from(network: PoseModel, path: Path) -> None:
    """Takes over every weight of a checkpoint whose name and shape fit; says how many did.

    A file that torch.save wrote may hold a backbone alone, such as HRNet's published ImageNet weights. The stems of
    branches beside 4x, which no saved model has, start from that one's. Raises CheckpointError if nothing fits.
    """
    source = load_checkpoint(path).state_dict if path.suffix == ".safetensors" else read_torch_weights(path)
    target = network.state_dict()
    named = {f"{BACKBONE}{key}": value for key, value in source.items()} | source
    fitting = {key: value for key, value in named.items() if key in target and target[key].shape == value.shape}
    if not fitting:
        raise CheckpointError(f"cannot initialise from {path}: none of its {len(source)} tensors fits this model")
    network.load_state_dict(fitting, strict=False)
    if not any(map(is_training_stem, fitting)):
        network.backbone.start_stems()
    logger.info("initialised %d of %d tensors from %s", len(fitting), len(target), path)
