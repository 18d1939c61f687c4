"""The normalisation of the input, inside and outside of the weights."""

import pytest
import torch

from posesdk.spec import EdgeBackboneSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec
from posesdk_training.checkpoint import save_checkpoint
from posesdk_training.models.build import PRESETS, build_model, preset
from posesdk_training.models.graphs import Trunk
from posesdk_training.models.normalisation import renormalise, take_levels
from posesdk_training.run.start import start_from

BACKBONES = {
    "edge": EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=6),
    "hrnet": HRNetSpec(channels=(4, 8, 16, 32)),
}
BLACK = (0.0, 0.0, 0.0)
OTHER = InputSpec(mean=(0.3, 0.5, 0.1), std=(0.2, 0.4, 0.7))


def spec_of(kind="edge", **given) -> ModelSpec:
    heads = HeadSpec(heatmap_channels=4, offset_channels=4 if kind == "edge" else 34, embedding=2, activation="sigmoid")
    return ModelSpec(name="tiny", backbone=BACKBONES[kind], heads=heads, input=InputSpec(**given))


def random_model(spec):
    """Batch norms with statistics of their own, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(spec).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    return model


@pytest.fixture
def image():
    return torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(image, spec):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.input.mean, spec.input.std))
    return (image.permute(0, 3, 1, 2) / 255 - mean) / std


def require_close(found, expected):
    """Equal to 1/10000 of the range, of which there is some."""
    spread = expected.max() - expected.min()
    assert spread > 1e-3
    assert (found - expected).abs().max() < 1e-4 * spread


def first_layer(model, pixels):
    convolution, norm = model.backbone.first_layer
    with torch.no_grad():
        return norm(convolution(pixels))


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("mean", [BLACK, (0.485, 0.456, 0.406)], ids=["black", "imagenet"])
def test_trunk_equals_the_model_on_normalised_pixels(kind, mean, image):
    model = random_model(spec_of(kind, mean=mean))
    with torch.no_grad():
        maps, (heatmaps, offsets, embedding) = model(normalised(image, model.spec)), Trunk(model)(image)
    for found, expected in (
        (heatmaps, maps.heatmaps),
        (offsets, maps.offsets),
        (embedding.permute(0, 3, 1, 2), maps.embedding),
    ):
        require_close(found, expected)


def test_taking_levels_leaves_the_model_as_it_was(image):
    model = random_model(spec_of(mean=BLACK))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not torch.equal(take_levels(model).backbone.stem[0].weight, model.backbone.stem[0].weight)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_levels_are_refused_where_a_mean_is_to_be_taken_off():
    with pytest.raises(ValueError, match=r"tiny has the mean \(0\.1, 0\.0, 0\.0\), not 0"):
        take_levels(build_model(spec_of(mean=(0.1, 0.0, 0.0))))


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("target", [InputSpec(mean=BLACK), OTHER], ids=["black", "other"])
def test_renormalised_first_layer_gives_the_same_inside_the_border(kind, target, image):
    source = spec_of(kind)
    model = random_model(source)
    expected = first_layer(model, normalised(image, source))
    model.spec = source.model_copy(update={"input": target})
    renormalise(model, source.input)
    found = first_layer(model, normalised(image, model.spec))
    require_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert not torch.allclose(found[..., 0, :], expected[..., 0, :], atol=1e-2)  # padding is another colour


def test_the_same_normalisation_changes_no_bit():
    model = random_model(spec_of())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    renormalise(model, InputSpec())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("parts", [None, ["backbone"], ["heads"]], ids=str)
def test_a_run_fits_what_it_starts_from_to_its_own_normalisation(tmp_path, image, parts):
    source, path = spec_of(), tmp_path / "source.safetensors"
    trained = random_model(source)
    save_checkpoint(path, trained.state_dict(), source)
    network = build_model(spec_of(mean=BLACK)).eval()
    before = network.backbone.first_layer[0].weight.clone()
    start_from(network, path, parts)
    if parts == ["heads"]:
        assert torch.equal(network.backbone.first_layer[0].weight, before)
        return
    expected = first_layer(trained, normalised(image, source))[..., 1:-1, 1:-1]
    found = first_layer(network, normalised(image, network.spec))[..., 1:-1, 1:-1]
    require_close(found, expected)


def test_edge_models_are_trained_without_a_mean():
    specs = [preset(name) for name in PRESETS]
    means = {spec.name: spec.input.mean for spec in specs if spec.backbone.kind == "edge"}
    assert len(means) >= 5
    assert set(means.values()) == {BLACK}
