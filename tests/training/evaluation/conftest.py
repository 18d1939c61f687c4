"""Fixtures of the evaluation's tests."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, InputSpec, ModelSpec
from posesdk_training.checkpoint import save_checkpoint
from posesdk_training.models.build import build_model


@pytest.fixture(scope="session")
def people(load_module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module people.py beside this file."""
    return load_module(Path(__file__).with_name("people.py"))


@pytest.fixture
def truth_file(tmp_path, people):
    """Seven labelled persons of both area ranges on images 1 to 3, a crowd; image 4 has nobody."""
    rng = np.random.default_rng(0)
    persons = [
        people.annotation(n, 1 + n % 3, rng, area=(2000.0, 20000.0)[n % 2], labelled=17 - n) for n in range(1, 8)
    ]
    crowd = people.annotation(8, 1, rng, labelled=0, iscrowd=1)
    return people.write_truth(tmp_path / "truth.json", [*persons, crowd])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny untrained model; its head biases make it find somebody in every picture."""
    spec = ModelSpec(
        name="tiny",
        input=InputSpec(resize="long", side=64, multiple=32),
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4, activation="sigmoid"),
        decode=DecodeSpec(nms_distance=0),
        adaptation=AdaptationSpec(local_size=3, global_size=9, reweigh_sigma=2.0, message_channels=(8, 8, 8)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_model(spec)
    model.final_layer_cls.bias.data.zero_()
    model.joints_mlp[-1].bias.data.fill_(0.5)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, model.state_dict(), spec)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of four pictures of noise, 1.png to 4.png."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(1, 5):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (50 + number, 70, 3), dtype=np.uint8))
    return folder
