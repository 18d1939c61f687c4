"""Checkpoints that the repository holds beside the default model."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="checkpoints are read by the training package")

from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import preset

CHECKPOINTS = sorted((Path(__file__).resolve().parents[1] / "training" / "weights").glob("*.safetensors"))
LARGEST_FILE = 10 * 2**20


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_checkpoint_is_the_model_it_is_called_after_and_small_enough(path):
    checkpoint = load_checkpoint(path)
    wanted, found = preset(path.stem), checkpoint.spec
    trained = wanted.input.model_copy(update={"mean": found.input.mean, "std": found.input.std})
    assert found == wanted.model_copy(update={"decode": found.decode, "input": trained})
    assert path.stat().st_size < LARGEST_FILE
    assert checkpoint.metadata["weights_licence"] == "Apache-2.0"
