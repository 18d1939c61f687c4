"""What the trunk is measured beside, and what is known of its layers."""

import numpy as np
import pytest

pytest.importorskip("openvino", reason="layers are counted by OpenVINO")
pytest.importorskip("onnxruntime", reason="layers are timed by ONNX Runtime")
onnx = pytest.importorskip("onnx", reason="chains are ONNX files")
torch = pytest.importorskip("torch", reason="the trunk is exported from torch")

from posesdk.spec import EdgeBackboneSpec, HeadSpec, ModelSpec  # noqa: E402
from posesdk_converters.onnx import export_trunk  # noqa: E402
from posesdk_runtimes.registry import open_runtime  # noqa: E402
from posesdk_training.models.build import build_model  # noqa: E402
from posesdk_training.models.cost import multiplications  # noqa: E402
from trunk_time.chains import Shape, write_chain  # noqa: E402
from trunk_time.layers import multiply_adds, onnxruntime_layers, openvino_layers  # noqa: E402

SHAPE = Shape(channels=8, rows=6, columns=10, layers=2)
SIZE = (64, 96)
IMAGE = np.zeros((1, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A tiny trunk's file, and its multiplications for one image of SIZE as torch counts them."""
    torch.manual_seed(0)
    backbone = EdgeBackboneSpec(stem=16, channels=(16, 16, 16, 16), blocks=(1, 1, 1, 1), neck=16)
    heads = HeadSpec(heatmap_channels=16, offset_channels=16, embedding=8, activation="sigmoid", offset_scale=8.0)
    model = build_model(ModelSpec(name="tiny", frame="consistent", backbone=backbone, heads=heads)).eval()
    path = tmp_path_factory.mktemp("trunk") / "trunk.onnx"
    export_trunk(model, path)
    return path, multiplications(model, torch.zeros(1, 3, *SIZE))


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_a_chain_multiplies_what_its_shape_says(tmp_path, int8):
    write_chain(tmp_path / "chain.onnx", SHAPE, int8=int8)

    weights = [value for value in onnx.load(tmp_path / "chain.onnx").graph.initializer if len(value.dims) == 4]
    assert sum(int(np.prod(value.dims)) for value in weights) * 6 * 10 == SHAPE.multiply_adds


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_int8_chain_gives_levels(tmp_path, runtime):
    write_chain(tmp_path / "chain.onnx", SHAPE, int8=True)
    opened = open_runtime(tmp_path / "chain.onnx", runtime=runtime, threads=1)

    (values,) = opened.run({"input": np.random.default_rng(0).random((1, 16, 6, 10), dtype=np.float32)}).values()

    levels = values / 0.02
    assert values.max() > 0
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def test_the_layers_of_a_trunk_multiply_what_torch_counts(trunk):
    path, expected = trunk

    assert sum(multiply_adds(path, SIZE).values()) == expected


def test_openvino_names_every_layer_that_multiplies(trunk):
    path, expected = trunk

    layers = openvino_layers(path, IMAGE, multiply_adds(path, SIZE), precision="f32", threads=1)

    assert sum(layer.multiply_adds for layer in layers) == expected


def test_onnxruntime_names_every_layer_that_multiplies(trunk, tmp_path):
    path, expected = trunk

    layers = onnxruntime_layers(path, IMAGE, multiply_adds(path, SIZE), threads=1, scratch=tmp_path)

    assert sum(layer.multiply_adds for layer in layers) == expected
