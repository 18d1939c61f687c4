"""The importer of published checkpoints, on the tiny reference weights and on others of that layout."""

import pytest
import torch

from posesdk.spec import AdaptationSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec
from posesdk_converters.importers.logocap import ImportOptions, import_logocap
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.models.build import build_model

SPEC = ModelSpec(
    name="other",
    backbone=HRNetSpec(channels=(4, 8, 12, 16), modules=(1, 2, 1), blocks=(1, 2, 3)),
    heads=HeadSpec(heatmap_channels=6, offset_channels=10, embedding=2),
    adaptation=AdaptationSpec(message_channels=(12, 10, 8), affine_pairs=3),
)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return build_model(SPEC).state_dict()


def written(folder, content):
    path = folder / "published.pth.tar"
    torch.save(content, path)
    return path


def test_architecture_is_read_off_the_shapes(tmp_path, weights):
    checkpoint = import_logocap(written(tmp_path, weights))
    spec = checkpoint.spec
    assert spec.backbone == SPEC.backbone
    assert spec.heads == SPEC.heads
    assert spec.adaptation == SPEC.adaptation
    assert (spec.frame, spec.convention) == ("published", "published")
    assert spec.decode.flip_test
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in weights.items())


def test_tiny_reference_weights_are_read(tmp_path, reference):
    arrays = reference("tiny_weights_fp16")
    path = written(tmp_path, {key: torch.tensor(value) for key, value in arrays.items()})
    checkpoint = import_logocap(path, ImportOptions(short_side=64))
    assert checkpoint.spec.backbone == HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1))
    assert checkpoint.spec.heads == HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4)
    assert checkpoint.spec.adaptation == AdaptationSpec(message_channels=(16, 12, 8), affine_pairs=5)
    parameters = build_model(checkpoint.spec).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 421_649


@pytest.mark.parametrize(("width", "side"), [(32, 512), (48, 640)])
def test_published_widths_have_their_published_short_side(tmp_path, width, side):
    spec = ModelSpec(
        name="published",
        backbone=HRNetSpec(channels=(width, 4, 4, 4), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=SPEC.heads,
        adaptation=SPEC.adaptation,
    )
    imported = import_logocap(written(tmp_path, build_model(spec).state_dict())).spec
    assert imported.input == InputSpec(resize="short", side=side)
    assert imported.name == f"logocap-hrnet-w{width}"


def test_options_replace_the_published_values(tmp_path, weights):
    options = ImportOptions(short_side=384, global_window=17, gaussian_sigma=2.5, local_size=7, name="mine")
    spec = import_logocap(written(tmp_path, weights), options).spec
    assert (spec.name, spec.input.side) == ("mine", 384)
    assert (spec.adaptation.global_size, spec.adaptation.reweigh_sigma, spec.adaptation.local_size) == (17, 2.5, 7)


def test_one_convolution_and_batch_norm_variants_are_read(tmp_path):
    for adaptation in (
        AdaptationSpec(message_channels=()),
        AdaptationSpec(message_channels=(8, 6, 4), norm="batch"),
    ):
        spec = SPEC.model_copy(update={"adaptation": adaptation})
        assert import_logocap(written(tmp_path, build_model(spec).state_dict())).spec.adaptation == adaptation


@pytest.mark.parametrize("wrap", ["best_state_dict", "state_dict"])
def test_resumable_checkpoint_gives_its_weights(tmp_path, weights, wrap):
    other = {f"module.{key}": torch.zeros_like(value) for key, value in weights.items()}
    content = {"epoch": 3, "model": "logocap", "perf": 0.5, "optimizer": {}, "state_dict": other}
    if wrap == "best_state_dict":
        content["best_state_dict"] = weights
    else:
        content["state_dict"] = {f"module.{key}": value for key, value in weights.items()}
    loaded = import_logocap(written(tmp_path, content)).state_dict
    assert torch.equal(loaded["transition_cls.0.weight"], weights["transition_cls.0.weight"])


def test_missing_extra_and_misshaped_keys_are_named(tmp_path, weights):
    spoiled = dict(weights)
    del spoiled["backbone.bn1.weight"]
    spoiled["loss.scale"] = torch.zeros(1)
    spoiled["final_layer_reg.bias"] = torch.zeros(33)
    with pytest.raises(CheckpointError) as caught:
        import_logocap(written(tmp_path, spoiled))
    message = str(caught.value)
    assert "1 missing (backbone.bn1.weight)" in message
    assert "1 unexpected (loss.scale)" in message
    assert "final_layer_reg.bias (33,) instead of (34,)" in message
    assert "published.pth.tar" in message


def test_checkpoint_of_another_network_names_missing_and_unexpected_keys(tmp_path):
    content = {f"encoder.{index}.weight": torch.zeros(2) for index in range(6)}
    with pytest.raises(CheckpointError, match=r"backbone\.conv1\.weight.*6 unexpected \(encoder\.0\.weight"):
        import_logocap(written(tmp_path, content))


def test_other_keypoint_count_is_refused(tmp_path, weights):
    content = {**weights, "final_layer_reg.weight": torch.zeros(28, 10, 1, 1)}
    with pytest.raises(CheckpointError, match="14 keypoints instead of the 17"):
        import_logocap(written(tmp_path, content))


class Payload:
    """Something whose loading would run code."""

    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Payload(), "more than tensors"),
        ([1, 2], "holds a list"),
        ({}, "state_dict"),
        ({"epoch": 3, "weight": torch.zeros(1)}, r"1 unexpected \(epoch\), which are no tensors"),
        (torch.zeros(3), "holds a Tensor"),
        ({"state_dict": torch.zeros(3)}, "13 missing"),
    ],
    ids=["code", "list", "empty", "no-tensor", "tensor", "wrapped tensor"],
)
def test_content_that_is_no_state_dict_is_refused(tmp_path, capsys, content, said):
    with pytest.raises(CheckpointError, match=said):
        import_logocap(written(tmp_path, content))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [0, 1, 2, 10, 100, 1000, -1000, -100, -10])
def test_truncated_file_is_refused(tmp_path, weights, size):
    path = written(tmp_path, weights)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="truncated"):
        import_logocap(path)


@pytest.mark.parametrize(
    "data",
    [b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"\x80\x02}q\x00.", b"<html></html>", bytes(512), b"(dp0\n."],
)
def test_foreign_file_is_refused(tmp_path, data):
    path = tmp_path / "foreign.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"foreign\.pth") as caught:
        import_logocap(path)
    assert "weights_only" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        import_logocap(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_logocap(tmp_path)
