"""A tiny real graph for every backend."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def weight() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory, weight: np.ndarray) -> Path:
    """image uint8 [B, H, W, 3] -> maps [B, 4, H-2, W-2], level [B]; `maps` passes through an Identity."""
    onnx = pytest.importorskip("onnx", reason="the test graphs are made with onnx")
    node, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    nodes = [
        node("Cast", ["image"], ["float"], to=kinds.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weight"], ["signed"]),
        node("Relu", ["signed"], ["inner"]),
        node("ReduceMean", ["inner", "axes"], ["level"], keepdims=0),
        node("Identity", ["inner"], ["maps"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(weight, "weight"),
        onnx.numpy_helper.from_array(np.array([1, 2, 3], dtype=np.int64), "axes"),
    ]
    body = onnx.helper.make_graph(
        nodes,
        "tiny",
        [info("image", kinds.UINT8, ["B", "H", "W", 3])],
        [info("maps", kinds.FLOAT, ["B", 4, "h", "w"]), info("level", kinds.FLOAT, ["B"])],
        constants,
    )
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="session")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """left [N] + right [M] -> sum: fails where N and M differ, which no check of one input can see."""
    onnx = pytest.importorskip("onnx", reason="the test graphs are made with onnx")
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["left", "right"], ["sum"])],
        "adder",
        [info("left", kind, ["N"]), info("right", kind, ["M"])],
        [info("sum", kind, ["L"])],
    )
    path = tmp_path_factory.mktemp("graph") / "adder.onnx"
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="session")
def tflite_graph() -> ModuleType:
    """The module that writes .tflite files, in tests/support."""
    pytest.importorskip("ai_edge_litert", reason="the .tflite graphs are made with ai-edge-litert")
    return importlib.import_module("tflite_graph")


@pytest.fixture(scope="session")
def convolution_tflite(tflite_graph: ModuleType, tmp_path_factory: pytest.TempPathFactory, weight: np.ndarray) -> Path:
    """The same as `graph`."""
    path: Path = tflite_graph.write_convolution(tmp_path_factory.mktemp("graph") / "tiny.tflite", weight)
    return path


@pytest.fixture(scope="session")
def adder_tflite(tflite_graph: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as `adder`."""
    path: Path = tflite_graph.write_adder(tmp_path_factory.mktemp("graph") / "adder.tflite")
    return path
