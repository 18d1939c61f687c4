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
    wanted = preset(path.stem)
    assert checkpoint.spec.model_copy(update={"decode": wanted.decode}) == wanted
    assert path.stat().st_size < LARGEST_FILE
    assert checkpoint.metadata["weights_licence"] == "Apache-2.0"
