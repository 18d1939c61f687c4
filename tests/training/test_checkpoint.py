import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from posesdk.spec import AdaptationSpec, EdgeBackboneSpec, HeadSpec, ModelSpec
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import load_checkpoint, load_model, save_checkpoint
from posesdk_training.models.build import build_model

SPEC = ModelSpec(
    name="tiny",
    backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
    heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4),
    adaptation=AdaptationSpec(message_channels=(8, 8, 8), affine_pairs=2, local_size=5, global_size=9),
)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return build_model(SPEC).state_dict()


@pytest.fixture
def saved(tmp_path, weights):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, weights, SPEC, metadata={"step": "12"})
    return path


def test_what_was_saved_is_loaded(saved, weights):
    checkpoint = load_checkpoint(saved)
    assert checkpoint.spec == SPEC
    assert checkpoint.metadata == {"step": "12"}
    assert checkpoint.state_dict.keys() == weights.keys()
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in weights.items())


def test_loaded_model_is_in_eval_mode_and_has_the_weights(saved, weights):
    model = load_model(saved)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())


def test_half_storage_is_half_as_large_and_keeps_vectors_exact(tmp_path):
    matrix, vector = torch.randn(200, 300), torch.randn(300)
    large = torch.full((4, 4), 1e6)
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, {"matrix": matrix, "vector": vector, "large": large}, SPEC, half=True)
    loaded = load_checkpoint(path).state_dict
    header = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert path.stat().st_size - header - 8 == 200 * 300 * 2 + 300 * 4 + 16 * 4
    assert torch.equal(loaded["matrix"], matrix.half().float())
    assert torch.equal(loaded["vector"], vector)
    assert torch.equal(loaded["large"], large)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(saved, weights, monkeypatch):
    before = saved.read_bytes()

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(saved, weights, SPEC)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_reserved_metadata_is_refused(tmp_path):
    with pytest.raises(ValueError, match="posesdk_spec"):
        save_checkpoint(tmp_path / "x.safetensors", {}, SPEC, metadata={"posesdk_spec": "{}"})


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def pickled(path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_another_project(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def of_a_later_version(path: Path) -> None:
    header = {"posesdk_checkpoint": "99", "posesdk_spec": SPEC.model_dump_json()}
    save_file({"weight": torch.zeros(2)}, path, metadata=header)


def with_a_broken_spec(path: Path) -> None:
    spec = {**json.loads(SPEC.model_dump_json()), "frame": "sideways"}
    save_file({"weight": torch.zeros(2)}, path, metadata={"posesdk_checkpoint": "1", "posesdk_spec": json.dumps(spec)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "truncated"),
        (cut_in_header, "truncated"),
        (pickled, "--from-logocap"),
        (emptied, "truncated"),
        (of_another_project, "not of posesdk"),
        (of_a_later_version, "version 99"),
        (with_a_broken_spec, "frame"),
    ],
)
def test_broken_file_is_named_with_its_fault(saved, spoil, said):
    spoil(saved)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_keys_that_do_not_fit_are_named_and_counted(tmp_path, weights):
    spoiled = dict(weights)
    gone = sorted(spoiled)[:6]
    for key in gone:
        del spoiled[key]
    spoiled["stranger"] = torch.zeros(1)
    spoiled["final_layer_cls.bias"] = torch.zeros(3)
    path = tmp_path / "spoiled.safetensors"
    save_checkpoint(path, spoiled, SPEC)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert f"6 missing ({', '.join(gone[:4])}, and 2 more)" in message
    assert "1 unexpected (stranger)" in message
    assert "final_layer_cls.bias (3,) instead of (18,)" in message
