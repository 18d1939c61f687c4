"""`--target onnx`: the int8 graphs of the tiny model through ONNX Runtime."""

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from posesdk_converters.calibration import Feeds
from posesdk_converters.onnx_int8 import quantize_onnx
from posesdk_converters.target import find_target
from posesdk_runtimes.registry import open_runtime


@pytest.fixture(scope="module")
def converted(start_conversion):
    """The folder of a bundle with the int8 graphs, their variant, and the conversion's notes."""
    conversion = start_conversion()
    (variant,) = find_target("onnx").convert(conversion, "int8")
    return conversion.folder, variant, conversion.notes


@pytest.fixture
def feeds(pictures, contexts):
    return {"trunk": {"image": next(pictures(1, seed=7))}, "adapt": {"context": next(contexts(1, seed=7))}}


def run(path, feeds):
    opened = open_runtime(path, runtime="onnxruntime", threads=1)
    found = opened.run(feeds)
    opened.close()
    return found


def correlation(one, other):
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def convolutions(path):
    return tuple(node.name for node in onnx.load(path).graph.node if node.op_type == "Conv")


def test_float_precision_adds_nothing_to_the_portable_graphs(start_conversion):
    conversion = start_conversion()
    assert find_target("onnx").convert(conversion, "fp32") == ()
    assert [path.name for path in conversion.folder.iterdir()] == ["portable"]


def test_variant_says_how_it_is_to_be_run(converted):
    folder, variant, notes = converted
    assert (variant.name, variant.precision, variant.runtime_precision) == ("onnx-int8", "int8", "f32")
    assert (variant.runtime, variant.devices) == (("onnxruntime",), ("cpu",))
    assert sorted(path.name for path in (folder / "onnx-int8").iterdir()) == ["adapt.onnx", "trunk.onnx"]
    assert set(notes) == {"onnxruntime"}


def test_int8_follows_the_float_model_at_any_size(converted, pictures, contexts):
    folder, variant, _ = converted
    for image in pictures(3, seed=7):
        feeds = {"image": np.concatenate([image, image[:, ::-1]])}
        wanted = run(folder / "portable/trunk.onnx", feeds)
        for name, values in run(folder / variant.trunk, feeds).items():
            assert values.dtype == np.float32
            assert values.shape == wanted[name].shape
            assert correlation(values, wanted[name]) > 0.95
    for count in (1, 5):
        context = np.concatenate([next(contexts(1, seed=seed)) for seed in range(count)])
        wanted = run(folder / "portable/adapt.onnx", {"context": context})["attraction_maps"]
        assert correlation(run(folder / variant.adapt, {"context": context})["attraction_maps"], wanted) > 0.95


def test_inputs_and_outputs_are_those_of_the_portable_graphs(converted):
    folder, variant, _ = converted
    for graph, path in (("trunk", variant.trunk), ("adapt", variant.adapt)):
        own = open_runtime(folder / path, runtime="onnxruntime")
        portable = open_runtime(folder / f"portable/{graph}.onnx", runtime="onnxruntime")
        assert (own.inputs, own.outputs) == (portable.inputs, portable.outputs)


def test_activations_are_unsigned_and_weights_signed_per_channel_but_for_layers_that_are_named(converted):
    folder, variant, _ = converted
    graph = onnx.load(folder / variant.trunk).graph
    stored = {value.name: value for value in graph.initializer}
    writers = {name: node for node in graph.node for name in node.output}
    checked = 0
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        if node.name in variant.float_layers:
            assert stored[node.input[1]].data_type == onnx.TensorProto.FLOAT
            continue
        levels = writers[node.input[1]]
        assert stored[levels.input[0]].data_type == onnx.TensorProto.INT8
        assert len(onnx.numpy_helper.to_array(stored[levels.input[1]])) == stored[levels.input[0]].dims[0]
        assert stored[writers[node.input[0]].input[2]].data_type == onnx.TensorProto.UINT8
        checked += 1
    names = convolutions(folder / "portable/trunk.onnx")
    assert checked == len(set(names) - set(variant.float_layers)) > len(names) / 2


def test_the_layer_that_reads_the_picture_stays_float(converted):
    folder, variant, _ = converted
    assert convolutions(folder / "portable/trunk.onnx")[0] in variant.float_layers


def test_a_depthwise_layer_reads_many_channels(tmp_path):
    numbers = np.random.default_rng(0)
    sizes = {"wide": (8, 3, 1, 1), "depthwise": (8, 1, 3, 3), "last": (4, 8, 1, 1)}
    nodes, value = [], "image"
    for name, size in sizes.items():
        nodes.append(helper.make_node("Conv", [value, f"{name}/w"], [name], name=name, group=8 if size[1] == 1 else 1))
        value = name
    weights = [
        numpy_helper.from_array(numbers.normal(size=size).astype(np.float32), f"{name}/w")
        for name, size in sizes.items()
    ]
    shape = [1, 3, 8, 8]
    ends = [
        helper.make_tensor_value_info(*end)
        for end in (("image", onnx.TensorProto.FLOAT, shape), ("last", 1, [1, 4, 6, 6]))
    ]
    graph = helper.make_graph(nodes, "depthwise", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "float.onnx")
    feeds = [numbers.normal(size=shape).astype(np.float32) for _ in range(3)]
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", feeds)
    stored = {value.name: value.data_type for value in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert stored["wide/w"] == onnx.TensorProto.FLOAT
    assert stored["depthwise/w_quantized"] == onnx.TensorProto.INT8


def test_maps_have_more_than_255_values(converted, pictures):
    folder, variant, _ = converted
    large = np.random.default_rng(5).integers(0, 256, (1, 192, 192, 3), dtype=np.uint8)
    found = run(folder / variant.trunk, {"image": large})
    assert len(np.unique(found["heatmaps"])) > 1000
    assert len(np.unique(found["offsets"])) > 1000


def test_same_inputs_give_the_same_bytes(converted, start_conversion):
    folder, variant, _ = converted
    again = start_conversion()
    find_target("onnx").convert(again, "int8")
    for path in (variant.trunk, variant.adapt):
        assert (folder / path).read_bytes() == (again.folder / path).read_bytes()


def test_named_layers_stay_float(start_conversion, feeds):
    conversion = start_conversion()
    names = {graph: convolutions(conversion.folder / f"portable/{graph}.onnx") for graph in ("trunk", "adapt")}
    (variant,) = find_target("onnx").convert(conversion, "int8", float_layers=names)
    assert sorted(variant.float_layers) == sorted(names["trunk"] + names["adapt"])
    for graph, path in (("trunk", variant.trunk), ("adapt", variant.adapt)):
        wanted = run(conversion.folder / f"portable/{graph}.onnx", feeds[graph])
        for name, values in run(conversion.folder / path, feeds[graph]).items():
            assert correlation(values, wanted[name]) > 0.9999


def test_unknown_layer_is_refused(start_conversion):
    with pytest.raises(ValueError, match=r"trunk\.onnx: no convolution node_nowhere in it"):
        find_target("onnx").convert(start_conversion(), "int8", float_layers={"trunk": ("node_nowhere",)})


@pytest.mark.parametrize("feeds", [None, Feeds((), ())])
def test_int8_without_calibration_images_is_refused(start_conversion, feeds):
    with pytest.raises(ValueError, match="int8 needs calibration images"):
        find_target("onnx").convert(start_conversion(feeds=feeds), "int8")


def test_adapt_stays_float_where_nobody_was_found(start_conversion, pictures):
    conversion = start_conversion(feeds=Feeds(tuple(pictures(4)), ()))
    (variant,) = find_target("onnx").convert(conversion, "int8")
    assert variant.adapt == "portable/adapt.onnx"
    assert "adapt is float" in conversion.notes["onnx-int8"]


def test_quantizing_prints_nothing_and_leaves_the_log_alone(tmp_path, converted, capfd, pictures):
    folder, _, _ = converted
    before = list(logging.getLogger().handlers)
    quantize_onnx(folder / "portable/trunk.onnx", tmp_path / "trunk.onnx", list(pictures(3)))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == before
    assert [path.name for path in tmp_path.iterdir()] == ["trunk.onnx"]
