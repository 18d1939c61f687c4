import numpy as np
import onnx
import pytest
import torch

from posesdk.bundle import build_manifest_files, open_bundle, write_manifest
from posesdk.spec import AdaptationSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec
from posesdk_converters.importers.bundle import import_bundle
from posesdk_converters.package import convert
from posesdk_converters.request import Request
from posesdk_runtimes.errors import BundleError
from posesdk_training.checkpoint import Checkpoint, load_checkpoint, load_model
from posesdk_training.models.build import build_model
from posesdk_training.models.graphs import Adapt, Trunk


def maps_of(model):
    spec = model.spec
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.integers(0, 256, (1, 64, 96, 3), np.uint8))
    side = spec.adaptation.local_size
    context = torch.from_numpy(rng.random((3, spec.keypoint_count * spec.heads.embedding, side, side), np.float32))
    with torch.inference_mode():
        return [*Trunk(model)(image), Adapt(model)(context)]


def rebuilt(bundle):
    source = import_bundle(bundle)
    model = build_model(source.spec)
    model.load_state_dict(source.state_dict)
    return model.eval()


def test_model_of_a_bundle_computes_what_its_checkpoint_does(converted_bundle, tiny_checkpoint):
    for found, wanted in zip(maps_of(rebuilt(converted_bundle)), maps_of(load_model(tiny_checkpoint)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_hrnet_of_a_bundle_computes_what_its_checkpoint_does(tmp_path, tiny_picture):
    spec = ModelSpec(
        name="small-hrnet",
        input=InputSpec(resize="short", side=64, multiple=64),
        backbone=HRNetSpec(channels=(8, 8, 8, 8), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=34, embedding=4),
        adaptation=AdaptationSpec(message_channels=(8, 6, 4), affine_pairs=2, local_size=5, norm="batch"),
    )
    torch.manual_seed(0)
    model = build_model(spec).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    bundle = tmp_path / "hrnet.posebundle"
    convert(
        Checkpoint(spec, model.state_dict(), {}),
        Request(("onnx",), golden=tiny_picture),
        bundle,
        step=lambda text: None,
    )
    for found, wanted in zip(maps_of(rebuilt(bundle)), maps_of(model), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_licence_and_origin_come_along(converted_bundle, tiny_checkpoint):
    assert import_bundle(converted_bundle).metadata["training_data"] == "none"
    assert import_bundle(converted_bundle).metadata["step"] == load_checkpoint(tiny_checkpoint).metadata["step"]


def test_what_was_noted_of_the_conversion_stays_behind(unpacked):
    _, sign = unpacked
    folder = sign()
    manifest = open_bundle(folder).manifest
    of_conversion = {"calibration": "8 images", "nncf": "1", "tensorrt-rtx": "1", "cpu-int8": "adapt is float"}
    provenance = {**manifest.provenance, **of_conversion, "run": "nano-3"}
    write_manifest(folder, manifest.model_copy(update={"provenance": provenance}))
    found = import_bundle(folder).metadata
    assert found["run"] == "nano-3"
    assert found["step"] == "0"
    assert not {*of_conversion, "converter", "openvino"} & found.keys()


def test_bundle_of_a_bundle_has_the_graphs_and_the_fixed_size_of_the_first(tiny_checkpoint, tiny_picture, tmp_path):
    size = (64, 96)
    request = Request(("onnx",), golden=tiny_picture, input_size=size)
    first, second = tmp_path / "first.posebundle", tmp_path / "second.posebundle"
    convert(load_checkpoint(tiny_checkpoint), request, first, step=lambda text: None)
    convert(import_bundle(first), Request(("onnx",), golden=tiny_picture), second, step=lambda text: None)
    manifest = open_bundle(second).manifest
    assert manifest.model == open_bundle(first).manifest.model
    assert [variant.input_size for variant in manifest.variants] == [size]
    for name in ("trunk", "adapt"):
        one, other = (onnx.load(open_bundle(path).local_path(f"portable/{name}.onnx")) for path in (first, second))
        assert [(node.name, node.op_type) for node in one.graph.node] == [
            (node.name, node.op_type) for node in other.graph.node
        ]
        weights = {value.name: onnx.numpy_helper.to_array(value) for value in one.graph.initializer}
        for value in other.graph.initializer:
            np.testing.assert_allclose(onnx.numpy_helper.to_array(value), weights[value.name], rtol=1e-6, atol=1e-7)


@pytest.fixture
def unpacked(converted_bundle, tmp_path):
    """The bundle as a folder, and a function that signs its files again."""
    bundle = open_bundle(converted_bundle)
    for file in bundle.manifest.files:
        path = tmp_path / "folder" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.read(file.path))
    folder = tmp_path / "folder"

    def sign():
        write_manifest(folder, bundle.manifest.model_copy(update={"files": build_manifest_files(folder)}))
        return folder

    return folder, sign


def test_graph_of_another_exporter_is_refused(unpacked):
    folder, sign = unpacked
    graph = onnx.load(folder / "portable/trunk.onnx")
    name = graph.graph.initializer[0].name
    for node in graph.graph.node:
        node.input[:] = ["renamed" if value == name else value for value in node.input]
    graph.graph.initializer[0].name = "renamed"
    onnx.save(graph, folder / "portable/trunk.onnx")
    with pytest.raises(BundleError, match=r"portable/trunk.onnx does not hold .* made by another exporter"):
        import_bundle(sign())


def test_graph_that_computes_something_else_is_refused(unpacked):
    folder, sign = unpacked
    graph = onnx.load(folder / "portable/trunk.onnx")
    relu = next(node for node in graph.graph.node if node.op_type == "Relu")
    relu.op_type = "Abs"
    onnx.save(graph, folder / "portable/trunk.onnx")
    with pytest.raises(BundleError, match="its weights cannot be read back"):
        import_bundle(sign())
