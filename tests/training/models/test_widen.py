"""A widened model computes what the narrow one does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from posesdk.spec import EdgeBackboneSpec, ModelSpec
from posesdk_training.checkpoint import Checkpoint, load_checkpoint, load_weights
from posesdk_training.models.build import build_model, logocap_small_spec
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.widen import widen
from posesdk_training.program import app

DEFAULT_MODEL = Path(__file__).resolve().parents[3] / "sdk" / "posesdk" / "models" / "default.safetensors"


def wider(spec: ModelSpec) -> ModelSpec:
    """No width a multiple of the old one, and two blocks more; another scale of the offsets."""
    heads = {"heatmap_channels": 11, "offset_channels": 13, "embedding": 6, "offset_scale": 4.0}
    adaptation = {"message_channels": (11, 10, 7), "affine_pairs": 5}
    return spec.model_copy(
        update={
            "name": "wider",
            "backbone": EdgeBackboneSpec(stem=12, channels=(11, 13, 16, 9), blocks=(1, 2, 1, 2), neck=19),
            "heads": spec.heads.model_copy(update=heads),
            "adaptation": spec.adaptation.model_copy(update=adaptation),
        }
    )


def network(checkpoint: Checkpoint) -> LogoCap:
    model = build_model(checkpoint.spec)
    load_weights(model, checkpoint.state_dict, source="test")
    return model.eval()


def widened_network(checkpoint: Checkpoint, target: ModelSpec, *, noise: float) -> LogoCap:
    result = widen(checkpoint, target, noise=noise)
    return network(Checkpoint(result.spec, result.state_dict))


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def test_maps_of_a_wider_model_with_two_centers_are_those_of_the_narrow_one(tiny_dac_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_dac_checkpoint)
    target = wider(narrow.spec)
    result = widen(narrow, target)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(narrow)(images)
        after = network(Checkpoint(result.spec, result.state_dict))(images)
    assert difference(before.heatmap_logits, after.heatmap_logits) < 1e-4
    assert difference(before.offsets, after.offsets) < 1e-4
    assert not result.per_person


def test_one_center_is_not_widened_to_two(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    with pytest.raises(ValueError, match="logocap with single centers and logocap with dual centers"):
        widen(narrow, wider(narrow.spec).model_copy(update={"centers": "dual"}))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_maps_of_the_wider_model_are_those_of_the_narrow_one(tiny_checkpoint: Path, noise: float) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(narrow)(images)
        after = widened_network(narrow, wider(narrow.spec), noise=noise)(images)
    assert float(before.heatmap_logits.std()) > 0.1
    assert difference(before.heatmap_logits, after.heatmap_logits) < 1e-4
    assert difference(before.offsets, after.offsets) < 1e-4
    assert difference(before.embedding, after.embedding[:, :4]) < 1e-4
    assert difference(before.embedding[:, :2], after.embedding[:, 4:]) < 1e-4


def test_maps_are_the_same_in_training_mode_too(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    target = wider(narrow.spec)
    with torch.no_grad():
        before = network(narrow).train()(images)
        after = widened_network(narrow, target, noise=0.5).train()(images)
    assert difference(before.heatmap_logits, after.heatmap_logits) < 1e-3


def test_message_passing_gives_the_same_attraction_maps(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    context = torch.rand(3, 17, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    copies = context[:, :, [0, 1, 2, 3, 0, 1]]  # six channels of the embedding
    with torch.no_grad():
        before = network(narrow).joints_mlp(context.flatten(1, 2))
        after = widened_network(narrow, wider(narrow.spec), noise=0.5).joints_mlp(copies.flatten(1, 2))
    assert float(before.std()) > 0.01
    assert difference(before, after) < 1e-4


def test_unequal_copies_part_in_training(tiny_checkpoint: Path) -> None:
    """Copies of a channel have the same gradient when their weight is shared out evenly, else another one."""
    narrow = load_checkpoint(tiny_checkpoint)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    distances = []
    for noise in (0.0, 0.5):
        model = widened_network(narrow, wider(narrow.spec), noise=noise)
        model(images).heatmap_logits.square().mean().backward()
        gradient = model.transition_cls[0].weight.grad
        assert isinstance(gradient, torch.Tensor)
        distances.append(difference(gradient[0], gradient[8]) / float(gradient[0].abs().max()))
    assert distances[0] < 1e-4
    assert distances[1] > 0.1


def test_message_passing_of_another_kind_starts_anew(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    target = wider(narrow.spec)
    one_layer = target.adaptation.model_copy(update={"message_channels": ()})
    result = widen(narrow, target.model_copy(update={"adaptation": one_layer}))
    assert not result.per_person
    assert result.state_dict["joints_mlp.0.weight"].shape == (17, 17 * 6, 1, 1)


def test_narrower_model_is_refused_by_its_widths(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    backbone = EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=4)
    with pytest.raises(ValueError, match="neck would shrink from 8 to 4"):
        widen(narrow, narrow.spec.model_copy(update={"backbone": backbone}))


def test_the_wider_model_normalises_as_the_narrow_one(tiny_checkpoint: Path) -> None:
    narrow = load_checkpoint(tiny_checkpoint)
    black = narrow.spec.input.model_copy(update={"mean": (0.0, 0.0, 0.0)})
    assert narrow.spec.input.mean != black.mean
    spec = widen(narrow, wider(narrow.spec).model_copy(update={"input": black})).spec
    assert spec.input == narrow.spec.input


@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason="the default model is not built")
def test_default_model_widened_to_small_gives_its_maps() -> None:
    narrow = load_checkpoint(DEFAULT_MODEL)
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(narrow)(images)
        after = widened_network(narrow, logocap_small_spec(), noise=0.5)(images)
    assert difference(before.heatmaps, after.heatmaps) < 1e-4
    assert difference(before.offsets, after.offsets) < 1e-4


def test_command_writes_a_checkpoint_that_a_run_can_start_from(
    tiny_checkpoint: Path, tmp_path: Path, tiny_configuration: Callable[[ModelSpec], Path]
) -> None:
    output = tmp_path / "wide.safetensors"
    target = wider(load_checkpoint(tiny_checkpoint).spec)
    config = tiny_configuration(target)
    done = CliRunner().invoke(app, ["widen", str(tiny_checkpoint), "--model", str(config), "--output", str(output)])
    assert done.exit_code == 0, done.output
    wide = load_checkpoint(output)
    assert wide.metadata["widened_from"] == "tiny"
    assert wide.spec.backbone == target.backbone
    network(wide)


def test_command_names_the_known_models(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = ["widen", str(tiny_checkpoint), "--model", "logocap-giant", "--output", str(tmp_path / "x.safetensors")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "logocap-small" in done.output


@pytest.fixture
def tiny_configuration(tmp_path: Path) -> Callable[[ModelSpec], Path]:
    """Writes a training configuration for a model."""

    def write(spec: ModelSpec) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(
            f"""
name: wider
model: {spec.model_dump_json()}
data: {{sets: [{{name: a, annotations: a.json, images: a}}]}}
phases: [{{mixture: {{a: 1.0}}, sizes: {{64: 1.0}}}}]
steps: 1
"""
        )
        return path

    return write
