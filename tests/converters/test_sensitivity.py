"""The ranking is right where it can be known: a graph of two layers, one of which int8 cannot hold."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posesdk_converters.calibration import Feeds
from posesdk_converters.verification.sensitivity import most_sensitive, rank_layers


def save_graph(path, first, second):
    """`second` * (`first` * x), two 1x1 convolutions of two channels."""
    weights = [numpy_helper.from_array(np.asarray(w, np.float32), n) for w, n in ((first, "a"), (second, "b"))]
    nodes = [
        helper.make_node("Conv", ["context", "a"], ["middle"], name="first"),
        helper.make_node("Conv", ["middle", "b"], ["attraction_maps"], name="second"),
    ]
    shape = ["n", 2, 4, 4]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("context", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("attraction_maps", TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def diagonal(first, second):
    return np.diag([first, second]).reshape(2, 2, 1, 1)


@pytest.fixture
def feeds():
    rng = np.random.default_rng(0)
    return Feeds((), tuple(rng.uniform(0, 1, (2, 2, 4, 4)).astype(np.float32) for _ in range(3)))


def test_layer_that_reads_channels_of_unequal_size_loses_most(tmp_path, feeds):
    # What the second layer reads has one range for a channel 1000 times as large as the one that it brings back.
    save_graph(tmp_path / "adapt.onnx", diagonal(1000, 1), diagonal(0.001, 1))
    ranking = rank_layers({"adapt": tmp_path / "adapt.onnx"}, feeds, step=lambda text: None)
    assert [entry.layer for entry in ranking] == ["second", "first"]
    assert ranking[0].error > 0.3 > 0.01 > ranking[1].error
    assert most_sensitive(ranking, 1) == {"adapt": ("second",)}
    assert most_sensitive(ranking, 2) == {"adapt": ("second", "first")}


def test_error_is_that_of_rounding_to_256_levels(tmp_path, feeds):
    save_graph(tmp_path / "adapt.onnx", diagonal(1, 1), diagonal(1, 1))
    ranking = rank_layers({"adapt": tmp_path / "adapt.onnx"}, feeds, step=lambda text: None)
    values = np.concatenate(feeds.adapt)
    step = values.max() / 255  # uniform rounding: rms of step / sqrt(12)
    expected = step / 12**0.5 / np.sqrt(np.square(values).mean())
    assert [entry.error for entry in ranking] == pytest.approx([expected] * 2, rel=0.15)


def test_graph_without_inputs_is_left_out(tmp_path):
    save_graph(tmp_path / "adapt.onnx", diagonal(1, 1), diagonal(1, 1))
    told = []
    assert rank_layers({"adapt": tmp_path / "adapt.onnx"}, Feeds((), ()), step=told.append) == ()
    assert told == []
