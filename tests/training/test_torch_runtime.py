import numpy as np
import pytest
import torch

from posesdk.spec import AdaptationSpec, EdgeBackboneSpec, HeadSpec, InputSpec, ModelSpec, PoseNetsSpec
from posesdk_runtimes.errors import DeviceUnavailableError, RuntimeFault
from posesdk_training.models.build import build_model
from posesdk_training.torch_runtime import torch_device, torch_pipeline


def _model(**changes):
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny",
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4, activation="sigmoid"),
        adaptation=AdaptationSpec(local_size=3, message_channels=(8, 8, 8)),
        pose_nets=PoseNetsSpec(patch=3, encoder=4, hidden=(8, 8), refinement_hidden=(8, 8), refinement_head=4),
        **changes,
    )
    return build_model(spec).eval()


@pytest.fixture(scope="module")
def model():
    return _model()


METHODS = [("logocap", "single"), ("logocap", "dual"), ("dac", "single"), ("dac", "dual")]


def test_trunk_normalises_and_gives_the_model_s_maps(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    found = torch_pipeline(model).trunk.run({"image": images})
    mean, std = np.array(model.spec.input.mean), np.array(model.spec.input.std)
    normalised = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        maps = model(torch.from_numpy(normalised))
    np.testing.assert_allclose(found["heatmaps"], maps.heatmaps, atol=1e-5)
    np.testing.assert_allclose(found["offsets"], maps.offsets, atol=1e-4)
    np.testing.assert_allclose(found["embedding"], maps.embedding.permute(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("persons", [1, 5])
def test_adapt_gives_attraction_maps(model, persons):
    context = np.random.default_rng(0).normal(size=(persons, 17 * 4, 3, 3)).astype(np.float32)
    found = torch_pipeline(model).adapt.run({"context": context})["attraction_maps"]
    with torch.no_grad():
        expected = model.joints_mlp(torch.from_numpy(context))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_model_without_adaptation_has_no_adapt_graph(model):
    spec = model.spec.model_copy(update={"adaptation": model.spec.adaptation.model_copy(update={"level": "none"})})
    assert torch_pipeline(model, spec).adapt is None


@pytest.mark.parametrize(("method", "centers"), METHODS)
def test_declared_outputs_have_the_shapes_that_come(method, centers):
    pipeline = torch_pipeline(_model(method=method, centers=centers))
    context = np.zeros([side or 2 for side in pipeline.adapt.inputs[0].shape], np.float32)
    for graph, feed in (
        (pipeline.trunk, {"image": np.zeros((1, 64, 64, 3), np.uint8)}),
        (pipeline.adapt, {"context": context}),
    ):
        found = graph.run(feed)
        assert set(found) == {spec.name for spec in graph.outputs}
        for spec in graph.outputs:
            shape = found[spec.name].shape
            assert all(wanted in (None, size) for wanted, size in zip(spec.shape, shape, strict=True))
            assert found[spec.name].dtype == spec.dtype


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize(("method", "centers"), METHODS)
def test_images_go_through_either_method(method, centers, flip_test):
    model = _model(method=method, centers=centers)
    decode = model.spec.decode.model_copy(update={"flip_test": flip_test, "max_people": 3})
    spec = model.spec.model_copy(update={"decode": decode, "input": InputSpec(side=64, multiple=32)})
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    for found in torch_pipeline(model, spec).run_batch(list(images)):
        assert 0 < len(found.scores) <= 3
        assert found.keypoints.shape == (len(found.scores), 17, 2)
        assert (found.scores > 0).all()


def test_model_without_pose_networks_has_no_second_graph():
    nets = PoseNetsSpec(similarity=False, confidence=False, refinement=False)
    model = _model(method="dac", centers="dual")
    assert torch_pipeline(model, model.spec.model_copy(update={"pose_nets": nets})).adapt is None


def test_wrong_feeds_are_refused(model):
    with pytest.raises(ValueError, match="image"):
        torch_pipeline(model).trunk.run({"image": np.zeros((1, 64, 64, 3), np.float32)})


def test_closed_runtime_cannot_run(model):
    pipeline = torch_pipeline(model)
    pipeline.close()
    pipeline.close()
    with pytest.raises(RuntimeFault, match="closed"):
        pipeline.trunk.run({"image": np.zeros((1, 64, 64, 3), np.uint8)})


def test_device_that_torch_does_not_have_is_named():
    with pytest.raises(DeviceUnavailableError, match="toaster"):
        torch_device("toaster")
