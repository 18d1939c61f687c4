import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.export import Dim

from posesdk.spec import AdaptationSpec, EdgeBackboneSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec
from posesdk_converters.onnx import check_graph, export_adapt, export_graph, export_trunk
from posesdk_runtimes.errors import GateError
from posesdk_runtimes.registry import open_runtime
from posesdk_training.models.build import build_model
from posesdk_training.models.graphs import Adapt, Trunk

EDGE = ModelSpec(
    name="edge",
    input=InputSpec(resize="long", side=64, multiple=32),
    backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
    heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4, activation="sigmoid"),
    adaptation=AdaptationSpec(message_channels=(8, 6, 4), affine_pairs=2, local_size=5, global_size=9),
)
HRNET = EDGE.model_copy(
    update={
        "name": "hrnet",
        "input": InputSpec(side=64, multiple=64),
        "backbone": HRNetSpec(channels=(4, 4, 8, 8), modules=(1, 1, 1), blocks=(1, 1, 1)),
        "heads": HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4),
    }
)


def model_of(spec):
    torch.manual_seed(0)
    return build_model(spec).eval()


def run(path, feeds):
    runtime = open_runtime(path, runtime="onnxruntime")
    try:
        return runtime.run(feeds)
    finally:
        runtime.close()


@pytest.fixture(scope="module", params=[EDGE, HRNET], ids=lambda spec: spec.name)
def trunk(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param.name) / "trunk.onnx"
    model = model_of(request.param)
    export_trunk(model, path)
    return model, path


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 192), (3, 256, 128)])
def test_one_trunk_serves_every_batch_and_image_size(trunk, shape):
    model, path = trunk
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    outputs = run(path, {"image": image})
    source = model.spec.input
    normalised = (image.transpose(0, 3, 1, 2) / 255 - np.reshape(source.mean, (3, 1, 1))) / np.reshape(
        source.std, (3, 1, 1)
    )
    with torch.inference_mode():
        maps = model(torch.from_numpy(normalised.astype(np.float32)))
    heatmaps = maps.heatmap_logits.numpy()
    if model.spec.heads.activation == "sigmoid":
        heatmaps = 1 / (1 + np.exp(-heatmaps))
    np.testing.assert_allclose(outputs["heatmaps"], heatmaps, atol=1e-4)
    np.testing.assert_allclose(outputs["offsets"], maps.offsets.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["embedding"], maps.embedding.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def test_fixed_size_stands_in_the_graph(tmp_path):
    path = tmp_path / "trunk.onnx"
    export_trunk(model_of(EDGE), path, input_size=(64, 96))
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims[1:]] == [64, 96, 3]
    assert dims[0].dim_param


def test_size_that_is_no_multiple_is_refused(tmp_path):
    with pytest.raises(ValueError, match="64x100 is not a multiple of 32"):
        export_trunk(model_of(EDGE), tmp_path / "trunk.onnx", input_size=(64, 100))


@pytest.mark.parametrize(
    "adaptation",
    [
        EDGE.adaptation,
        AdaptationSpec(message_channels=(), local_size=7),
        AdaptationSpec(message_channels=(4, 4, 4), norm="batch"),
    ],
    ids=["attentive", "one-convolution", "batch"],
)
def test_one_adapt_serves_every_number_of_persons(tmp_path, adaptation):
    model = model_of(EDGE.model_copy(update={"adaptation": adaptation}))
    path = tmp_path / "adapt.onnx"
    export_adapt(model, path)
    size = adaptation.local_size
    for persons in (1, 3, 40):
        context = np.random.default_rng(2).random((persons, 17 * 4, size, size), dtype=np.float32)
        with torch.inference_mode():
            wanted = model.joints_mlp(torch.from_numpy(context)).numpy()
        np.testing.assert_allclose(run(path, {"context": context})["attraction_maps"], wanted, atol=1e-4)


def test_model_that_uses_no_attraction_maps_has_no_adapt_graph(tmp_path):
    spec = EDGE.model_copy(update={"adaptation": AdaptationSpec(level="none", message_channels=(8, 6, 4))})
    with pytest.raises(ValueError, match="no adapt graph"):
        export_adapt(model_of(spec), tmp_path / "adapt.onnx")


def test_graph_holds_no_paths_of_the_machine(trunk):
    _, path = trunk
    content = path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_two_exports_are_equal(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_adapt(model_of(EDGE), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_graph_that_differs_from_torch_is_refused(tmp_path, monkeypatch):
    model = model_of(EDGE)
    exact = Adapt.forward
    monkeypatch.setattr(
        Adapt, "forward", lambda self, context: exact(self, context) + torch.is_inference_mode_enabled() * 1e-3
    )
    with pytest.raises(GateError, match=r"0\.001 from torch, allowed 0\.0001"):
        export_adapt(model, tmp_path / "adapt.onnx")


def graph_with(path, operator, opset=18):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4, 4, 3])
    kind = TensorProto.FLOAT if operator == "Cast" else TensorProto.UINT8
    shape = [1, 4, 4, 3] if operator == "Cast" else [1, 3, 4, 4]
    attributes = {"to": TensorProto.FLOAT} if operator == "Cast" else {"perm": [0, 3, 1, 2]}
    node = helper.make_node(operator, ["image"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [image], [helper.make_tensor_value_info("y", kind, shape)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def test_other_operator_set_is_refused(tmp_path):
    check_graph(graph_with(tmp_path / "good.onnx", "Cast"))
    with pytest.raises(GateError, match="17"):
        check_graph(graph_with(tmp_path / "old.onnx", "Cast", opset=17))


def test_uint8_input_that_is_transposed_first_is_refused(tmp_path):
    with pytest.raises(GateError, match=r"'image' goes into .*Transpose.*, not a Cast"):
        check_graph(graph_with(tmp_path / "early.onnx", "Transpose"))


def test_invalid_graph_is_refused(tmp_path):
    path = graph_with(tmp_path / "broken.onnx", "Cast")
    model = onnx.load(path)
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, path)
    with pytest.raises(GateError, match="not valid ONNX"):
        check_graph(path)


def test_trunk_takes_levels_and_gives_channels_last_embedding():
    maps = Trunk(model_of(EDGE))(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert [tuple(value.shape) for value in maps] == [(1, 18, 16, 24), (1, 34, 16, 24), (1, 16, 24, 4)]


class SizeOfImage(torch.nn.Module):
    def forward(self, image):
        return image.float().mean() * image.shape[1] + torch.arange(image.shape[2])


@pytest.mark.parametrize(("mean", "steps"), [((0.0, 0.0, 0.0), 0), (EDGE.input.mean, 1)], ids=["black", "imagenet"])
def test_normalisation_without_a_mean_is_part_of_the_first_convolution(tmp_path, mean, steps):
    spec = EDGE.model_copy(update={"input": EDGE.input.model_copy(update={"mean": mean})})
    export_trunk(model_of(spec), tmp_path / "trunk.onnx", input_size=(64, 96))
    nodes = onnx.load(tmp_path / "trunk.onnx").graph.node
    first = [node.op_type for node in nodes if node.op_type != "Constant"][:4]
    assert first == ["Cast", "Transpose", *["BatchNormalization"] * steps, "Conv", "Relu"][:4]


def test_size_of_an_image_is_read_from_its_cast(tmp_path):
    path = tmp_path / "size.onnx"
    shapes = {1: 2 * Dim("rows", max=99), 2: Dim("columns", max=99)}
    image = torch.ones(1, 6, 5, 3, dtype=torch.uint8)
    export_graph(SizeOfImage().eval(), image, path, names=("image", "size"), shapes=shapes)
    readers = {node.op_type for node in onnx.load(path).graph.node if "image" in node.input}
    assert readers == {"Cast"}
    assert run(path, {"image": np.full((1, 4, 3, 3), 2, np.uint8)})["size"].tolist() == [8, 9, 10]
