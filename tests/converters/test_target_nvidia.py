import copy
import json
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")

from posesdk.pipeline import Pipeline
from posesdk.spec import InputSpec
from posesdk_converters.calibration import Feeds
from posesdk_converters.nvidia.fp16 import to_half, too_large
from posesdk_converters.nvidia.opset import with_opset
from posesdk_converters.nvidia.profiles import engine_recipes
from posesdk_converters.nvidia.qdq_s8 import activation_ranges, check_quantized, quantizable
from posesdk_converters.onnx import relative_error
from posesdk_converters.recording import FeedRecorder
from posesdk_converters.target import Conversion, find_target, portable_variant
from posesdk_converters.verification.parity import random_images
from posesdk_runtimes.engines.recipe import GraphRecipe, read_recipe, read_recipes
from posesdk_runtimes.errors import EngineBuildError, GateError, SourceError
from posesdk_runtimes.onnxruntime import import_onnxruntime
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_model

TARGETS = ("jetson", "cuda")
PRECISIONS = ("fp32", "fp16", "int8")
FILES = [(target, precision, graph) for target in TARGETS for precision in PRECISIONS for graph in ("trunk", "adapt")]


def run(path, feeds):
    runtime = open_runtime(path, runtime="onnxruntime")
    try:
        return runtime.run(feeds)
    finally:
        runtime.close()


def record(folder, spec, images):
    trunk = FeedRecorder(open_runtime(folder / "portable/trunk.onnx", runtime="onnxruntime"))
    adapt = FeedRecorder(open_runtime(folder / "portable/adapt.onnx", runtime="onnxruntime"))
    pipeline = Pipeline(spec, trunk, adapt)
    for image in images:
        pipeline.run(image)
    pipeline.close()
    return Feeds(tuple(feed["image"] for feed in trunk.feeds), tuple(feed["context"] for feed in adapt.feeds))


@pytest.fixture(scope="module")
def conversion(tiny_checkpoint, converted_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvidia")
    (folder / "portable").mkdir()
    model = load_model(tiny_checkpoint)
    with zipfile.ZipFile(converted_bundle) as bundle:
        for graph in ("trunk", "adapt"):
            bundle.extract(f"portable/{graph}.onnx", folder)
    images = [image[: 40 + 8 * index] for index, image in enumerate(random_images(model.spec, 6))]
    return Conversion(
        folder, portable_variant(adapt=True, input_size=None), model, feeds=record(folder, model.spec, images)
    )


@pytest.fixture(scope="module")
def variants(conversion):
    """(target, precision) -> the variant, every file of it being in the conversion's folder."""
    found = {}
    for target in TARGETS:
        for precision in PRECISIONS:
            calibrated = conversion if precision == "int8" else replace(conversion, feeds=None)
            (found[target, precision],) = find_target(target).convert(calibrated, precision)
    return found


def load(conversion, target, precision, graph):
    return onnx.load(conversion.folder / f"{target}-{precision}/{graph}.onnx")


def kinds(model):
    """Element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        value.name: value.data_type for value in inferred.initializer
    }


@pytest.mark.parametrize("target", TARGETS)
def test_fp16_comes_first_and_every_precision_is_there(target):
    assert find_target(target).PRECISIONS[0] == "fp16"
    assert set(find_target(target).PRECISIONS) == set(PRECISIONS)


def test_variants_name_tensorrt_first_on_cuda(variants):
    for (target, precision), variant in variants.items():
        assert variant.name == f"{target}-{precision}"
        assert variant.runtime == ("tensorrt", "onnxruntime")
        assert variant.devices == ("cuda",)
        assert variant.platform == target
        assert variant.precision == precision


@pytest.mark.parametrize(("target", "precision", "graph"), FILES)
def test_file_has_the_operator_set_and_ends_of_its_target(conversion, variants, target, precision, graph):
    model = load(conversion, target, precision, graph)
    wanted = 17 if target == "jetson" else 19 if precision == "int8" else 18
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", wanted)]
    portable = onnx.load(conversion.folder / f"portable/{graph}.onnx")
    for values in ("input", "output"):
        mine, theirs = getattr(model.graph, values), getattr(portable.graph, values)
        assert [(value.name, value.type) for value in mine] == [(value.name, value.type) for value in theirs]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("precision", "most"), [("fp32", 0), ("fp16", 5e-3)])
def test_every_batch_and_size_gives_nearly_the_portable_maps(conversion, variants, target, precision, most):
    rng = np.random.default_rng(4)
    for shape in ((1, 64, 96, 3), (2, 96, 32, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        wanted = run(conversion.folder / "portable/trunk.onnx", {"image": image})
        found = run(conversion.folder / f"{target}-{precision}/trunk.onnx", {"image": image})
        for name, value in wanted.items():
            assert relative_error(found[name], value) <= most
            assert found[name].dtype == np.float32
    contexts = np.concatenate(conversion.feeds.adapt)
    for count in (1, 7):
        context = contexts[:count]
        wanted = run(conversion.folder / "portable/adapt.onnx", {"context": context})["attraction_maps"]
        found = run(conversion.folder / f"{target}-{precision}/adapt.onnx", {"context": context})["attraction_maps"]
        assert relative_error(found, wanted) <= most


@pytest.mark.parametrize("target", TARGETS)
def test_int8_maps_follow_the_portable_ones(conversion, variants, target):
    for graph, feeds in (
        ("trunk", {"image": conversion.feeds.trunk[1]}),
        ("adapt", {"context": conversion.feeds.adapt[1]}),
    ):
        wanted = run(conversion.folder / f"portable/{graph}.onnx", feeds)
        found = run(conversion.folder / f"{target}-int8/{graph}.onnx", feeds)
        for name, value in wanted.items():
            assert np.corrcoef(found[name].ravel(), value.ravel())[0, 1] > 0.98
            assert not np.array_equal(found[name], value)


def test_onnxruntime_leaves_biases_beside_half_scales_alone(conversion, variants):
    """One of its optimizers rounds them to multiples of a float16 product that is 0 or nearly so."""
    onnxruntime = import_onnxruntime()
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    path, context = conversion.folder / "cuda-int8/adapt.onnx", conversion.feeds.adapt[0]
    (wanted,) = onnxruntime.InferenceSession(path, plain).run(None, {"context": context})
    assert relative_error(run(path, {"context": context})["attraction_maps"], wanted) <= 0.02


@pytest.mark.parametrize("target", TARGETS)
def test_fp16_convolves_in_half_and_keeps_statistics_and_last_layers_single(conversion, variants, target):
    for graph in ("trunk", "adapt"):
        model = load(conversion, target, "fp16", graph)
        types = kinds(model)
        last = {value.name for value in model.graph.output} | {
            node.input[0] for node in model.graph.node if node.op_type in ("Sigmoid", "Mul")
        }
        halves = 0
        for node in model.graph.node:
            outside = last.issuperset(node.output) or node.op_type in (
                "AveragePool",
                "Pow",
                "Sqrt",
                "BatchNormalization",
            )
            if outside and node.op_type != "Cast":
                assert types[node.output[0]] == TensorProto.FLOAT, node.name
            halves += node.op_type == "Conv" and types[node.output[0]] == TensorProto.FLOAT16
        assert halves >= (15 if graph == "trunk" else 3)


def large_graph(weight):
    """Two convolutions of one pixel: times `weight`, and divided by it again."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1])
    nodes = [
        helper.make_node("Conv", ["x", "up"], ["a"], name="up"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "down"], ["c"], name="down"),
        helper.make_node("Relu", ["c"], ["y"], name="end"),
    ]
    constants = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), name)
        for name, value in (("up", weight), ("down", 1 / weight))
    ]
    graph = helper.make_graph(nodes, "large", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_tensors_beyond_the_range_of_float16_stay_single(tmp_path):
    model, x = large_graph(1000.0), np.full((1, 1, 1, 1), 200, np.float32)
    assert too_large(model, [x]) == {"a", "b"}
    assert too_large(model, [x / 100]) == frozenset()
    onnx.save(to_half(model, single=too_large(model, [x])), tmp_path / "kept.onnx")
    assert run(tmp_path / "kept.onnx", {"x": x})["y"] == pytest.approx(200, rel=1e-3)
    assert "Cast" in {node.op_type for node in to_half(model).graph.node}


def dequantized(model):
    """Convolution -> the float weights that its int8 ones stand for, and the scales, by the definition."""
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    found = {}
    for node in model.graph.node:
        source = producers.get(node.input[1]) if node.op_type == "Conv" else None
        if source is not None:
            levels, scale = constants[source.input[0]], constants[source.input[1]].astype(np.float64)
            found[node.name] = (levels, levels * scale[:, None, None, None], scale)
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("graph", ["trunk", "adapt"])
def test_int8_weights_are_within_half_a_step_of_the_trained_ones(conversion, variants, target, graph):
    portable = onnx.load(conversion.folder / f"portable/{graph}.onnx")
    constants = {value.name: numpy_helper.to_array(value) for value in portable.graph.initializer}
    trained = {node.name: constants[node.input[1]] for node in portable.graph.node if node.op_type == "Conv"}
    found = dequantized(load(conversion, target, "int8", graph))
    assert set(found) == set(quantizable(portable))
    # The last layers stay float: of heatmaps and offsets, or of attraction maps. The attention's three see statistics.
    assert len(found) == len(trained) - (4 if graph == "adapt" else 2)
    for name, (levels, values, scale) in found.items():
        assert levels.dtype == np.int8
        assert np.abs(levels.astype(int)).max() <= 127
        assert np.abs(levels.astype(int)).max(axis=(1, 2, 3)).min() >= 126
        assert (np.abs(values - trained[name]) <= 0.5001 * scale[:, None, None, None]).all()


def copy_graph():
    """A graph that gives what it reads, as the input of a convolution."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 1, 1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1, 1, 1])
    one = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], name="c")], "g", [image], [output], [one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_range_is_that_of_the_least_square_error():
    values = np.random.default_rng(0).standard_normal((200_000, 1, 1, 1), dtype=np.float32)
    values[:2] = 20
    (top,) = activation_ranges(copy_graph(), ("x",), [values[:1000], values[1000:]]).values()

    def error(limit):
        step = limit / 127
        return np.square(np.clip(np.rint(values / step), -127, 127) * step - values).mean()

    largest = float(np.abs(values).max())
    best = min(np.linspace(0.1, 1, 181) * largest, key=error)
    assert top < 0.8 * largest
    assert error(top) <= 1.02 * error(best)


def test_tensor_that_is_never_anything_but_zero_has_no_range():
    assert activation_ranges(copy_graph(), ("x",), [np.zeros((2, 1, 1, 1), np.float32)]) == {}


@pytest.mark.parametrize("target", TARGETS)
def test_every_zero_point_is_a_signed_zero_and_no_bias_is_quantized(conversion, variants, target):
    for graph in ("trunk", "adapt"):
        model = load(conversion, target, "int8", graph)
        constants = {value.name: value for value in model.graph.initializer}
        pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs
        for node in pairs:
            zero = constants[node.input[2]]
            assert zero.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero).any()
        assert TensorProto.INT32 not in {value.data_type for value in constants.values()}


def test_named_layers_stay_float(conversion, tmp_path):
    portable = onnx.load(conversion.folder / "portable/trunk.onnx")
    names = tuple(quantizable(portable))[:2]
    (tmp_path / "portable").symlink_to(conversion.folder / "portable")
    there = replace(conversion, folder=tmp_path)
    (variant,) = find_target("cuda").convert(there, "int8", float_layers={"trunk": names})
    found = dequantized(onnx.load(tmp_path / variant.trunk))
    assert set(found) == set(quantizable(portable)) - set(names)
    left = set()
    for graph in ("trunk", "adapt"):
        nodes = onnx.load(conversion.folder / f"portable/{graph}.onnx").graph.node
        rounded = dequantized(onnx.load(tmp_path / f"cuda-int8/{graph}.onnx"))
        left |= {node.name for node in nodes if node.op_type == "Conv"} - set(rounded)
    assert set(variant.float_layers) == left > set(names)  # the last layers are float in any case


def test_fused_graph_is_asked_for_in_float_precisions_only(conversion, tmp_path):
    (tmp_path / "portable").symlink_to(conversion.folder / "portable")
    model = copy.copy(conversion.model)
    model.spec = model.spec.model_copy(update={"frame": "published"})
    asked = replace(conversion, folder=tmp_path, model=model, fused=True)
    assert [variant.name for variant in find_target("cuda").convert(asked, "int8")] == ["cuda-int8"]
    with pytest.raises(ValueError, match="fused graph"):
        find_target("cuda").convert(asked, "fp16")


def test_second_conversion_gives_the_same_bytes(conversion, variants, tmp_path):
    (tmp_path / "portable").symlink_to(conversion.folder / "portable")
    for _ in range(2):  # into an empty folder, and over what is there
        find_target("cuda").convert(replace(conversion, folder=tmp_path), "int8")
        for file in (conversion.folder / "cuda-int8").iterdir():
            assert (tmp_path / "cuda-int8" / file.name).read_bytes() == file.read_bytes()


def test_calibration_without_people_is_refused(conversion):
    empty = Feeds(conversion.feeds.trunk, tuple(context[:0] for context in conversion.feeds.adapt))
    with pytest.raises(SourceError, match="finds nobody"):
        find_target("jetson").convert(replace(conversion, feeds=empty), "int8")


@pytest.mark.parametrize(
    ("levels", "kind", "message"),
    [
        (np.uint8(128), "activation", "not an int8 of 0"),
        (np.int8(3), "activation", "not an int8 of 0"),
        (np.int32(0), "bias", "not an int8 of 0"),
    ],
    ids=["unsigned", "asymmetric", "int32-bias"],
)
def test_other_quantization_is_refused(levels, kind, message):
    source = "x" if kind == "activation" else "b"
    nodes = [helper.make_node("DequantizeLinear", [source, "s", "z"], ["y"], name="d")]
    constants = [
        numpy_helper.from_array(np.float32(1), "s"),
        numpy_helper.from_array(np.array(levels), "z"),
        numpy_helper.from_array(np.ones(1, levels.dtype), "b"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], constants))
    with pytest.raises(GateError, match=message):
        check_quantized(model, "file")


@pytest.mark.parametrize(
    ("operator", "attributes", "message"),
    [
        ("Resize", {"antialias": 1, "mode": "linear"}, "antialias"),
        ("ReduceMean", {"keepdims": 1}, "another ReduceMean"),
    ],
    ids=["changed-attribute", "changed-input"],
)
def test_operator_that_older_sets_have_not_is_not_moved(operator, attributes, message):
    node = helper.make_node(operator, ["x"], ["y"], name="n", **attributes)
    model = helper.make_model(helper.make_graph([node], "g", [], []), opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(GateError, match=message):
        with_opset(model, 17)


LONG = InputSpec(resize="long", side=320, multiple=32)
SHORT = InputSpec(resize="short", side=512, multiple=64)


@pytest.mark.parametrize(
    ("source", "size", "flip", "shapes"),
    [
        (LONG, None, False, ((1, 32, 32), (1, 192, 320), (1, 320, 320))),
        (LONG, (256, 320), False, ((1, 256, 320),) * 3),
        (LONG, (256, 320), True, ((1, 256, 320), (2, 256, 320), (2, 256, 320))),
        (SHORT, None, False, ((1, 512, 512), (1, 512, 960), (1, 1280, 1280))),
    ],
    ids=["long", "fixed", "flip", "short"],
)
def test_engines_are_built_for_the_sizes_of_the_model(conversion, source, size, flip, shapes):
    spec = conversion.model.spec
    decode = spec.decode.model_copy(update={"flip_test": flip, "max_people": 3})
    recipes = engine_recipes(spec.model_copy(update={"input": source, "decode": decode}), size, 64)
    image = recipes["trunk"].profiles["image"]
    assert (image.min, image.opt, image.max) == tuple((*shape, 3) for shape in shapes)
    context = recipes["adapt"].profiles["context"]
    assert [shape[0] for shape in (context.min, context.opt, context.max)] == [1, 3, 3]
    assert context.min[1:] == (17 * spec.heads.embedding, 5, 5)


def test_recipe_beside_the_files_can_be_read(conversion, variants):
    path = conversion.folder / "jetson-fp16/engine.json"
    assert read_recipes(path) == engine_recipes(conversion.model.spec, None, 1024)
    assert json.loads(path.read_bytes())["trunk"]["strongly_typed"] is True


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="the builds need the [convert-nvidia] extra", exc_type=ImportError)
    from posesdk_converters.nvidia import rtx

    return rtx


def test_engines_of_every_precision_are_built_without_a_gpu(conversion, variants, rtx, capfd):
    chosen = [variants["cuda", "fp16"], variants["cuda", "int8"], variants["jetson", "int8"], conversion.portable]
    checks = rtx.validate(conversion.folder, chosen)
    assert [check.file for check in checks] == [
        f"{variant.name if variant.precision != 'fp32' else 'portable'}/{graph}.onnx"
        for variant in chosen
        for graph in ("trunk", "adapt")
    ]
    for check in checks:
        assert check.passed, check.errors
        assert check.engine_mib > 0
        assert check.seconds > 0
    assert capfd.readouterr() == ("", "")
    assert conversion.notes["tensorrt-rtx"] == rtx.rtx_version()


def test_graph_that_transposes_the_bytes_of_an_image_is_not_parsed(rtx, tmp_path):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4, 4, 3])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", [image], [output])
    path = tmp_path / "early.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    check = rtx.check_with_rtx(path, GraphRecipe(), "fp32")
    assert not check.passed
    assert any("UInt8" in error for error in check.errors)
    with pytest.raises(GateError, match=r"cannot read it: .*UInt8"):
        rtx.require_parsed(path, GraphRecipe(), "fp32")


def test_lack_of_memory_for_a_build_is_not_a_fault_of_the_file(conversion, variants, rtx, monkeypatch):
    import tensorrt_rtx

    def refuse(builder, network, config):
        rtx._log().messages.append(("ERROR", "Unexpected exception std::bad_alloc"))

    monkeypatch.setattr(tensorrt_rtx.Builder, "build_serialized_network", refuse)
    recipe = read_recipe(conversion.folder / "jetson-fp16/adapt.onnx")
    with pytest.raises(
        EngineBuildError, match=r"adapt\.onnx.*std::bad_alloc; close other programs, add swap"
    ) as caught:
        rtx.check_with_rtx(conversion.folder / "jetson-fp16/adapt.onnx", recipe, "fp16")
    assert caught.value.reason == "memory"


def test_missing_profile_is_an_error_of_the_build(conversion, rtx):
    check = rtx.check_with_rtx(conversion.folder / "portable/adapt.onnx", GraphRecipe(), "fp32")
    assert check.parsed
    assert not check.passed
    assert check.engine_mib is None
    assert any("profile" in error for error in check.errors)
