"""Writes the mean of the weights of several checkpoints, of runs that started from one another.

    python scripts/average_weights.py LAST EARLIER... --output FILE.safetensors

Specification and notes are those of the first one, to whose normalisation of the input the others are fitted.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from posesdk.spec import ModelSpec
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.models.build import build_model
from posesdk_training.run.start import start_from


def main() -> None:
    """Reads the checkpoints and writes their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    first = load_checkpoint(arguments.checkpoints[0])
    states = [fitted(path, first.spec) for path in arguments.checkpoints]
    mean = {key: torch.stack([state[key].float() for state in states]).mean(dim=0) for key in first.state_dict}
    mean = {key: value.to(first.state_dict[key].dtype) for key, value in mean.items()}
    save_checkpoint(arguments.output, mean, first.spec, metadata=first.metadata)


def fitted(path: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights of a checkpoint in a model of `spec`; ValueError where one is missing."""
    model = build_model(spec)
    missing = sorted(set(model.state_dict()) - set(load_checkpoint(path).state_dict))
    if missing:
        raise ValueError(f"{path} cannot be averaged with the first one: it lacks {', '.join(missing[:3])}")
    start_from(model, path)
    return model.state_dict()


if __name__ == "__main__":
    main()
