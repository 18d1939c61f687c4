"""Layers put back to float, with every real target: what is judged last is what lies in the bundle."""

import hashlib
import re
import shutil
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from posesdk.manifest import Variant
from posesdk.verify import Gate, Reference
from posesdk_converters.target import find_target
from posesdk_converters.verification.judge import Judge, Judged
from posesdk_converters.verification.parity import open_pipeline
from posesdk_converters.verification.sensitivity import LayerError, layers_of

TARGETS = {"cpu": "nncf", "onnx": "onnxruntime", "mobile": "litert_torch", "jetson": "onnxruntime"}
"""And the library that each needs."""
NEEDED = 4
"""Float layers that pass: 1, 2, 4 and then 3 are tried, so that the files have to be written once more."""


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def float_convolutions(path):
    """How many convolutions of a file have float weights."""
    if path.suffix == ".tflite":
        from posesdk_converters.tflite.graph import read_operators

        return sum(entry.kind == "CONV_2D" and entry.weights is not None for entry in read_operators(path.read_bytes()))
    if path.suffix == ".xml":
        from posesdk_runtimes.openvino import shared_core

        layers = [node for node in shared_core().read_model(path).get_ops() if node.get_type_name() == "Convolution"]
        return sum(node.input_value(1).get_node().get_type_name() == "Constant" for node in layers)
    graph = onnx.load(path).graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    stored = {value.name for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in stored | dequantized]
    return sum(node.input[1] not in dequantized for node in layers)


@pytest.fixture
def conversion(start_conversion):
    return start_conversion()


@pytest.fixture
def ranking(conversion, monkeypatch):
    """Every layer, in the order of the graphs in turn."""
    layers = {
        graph: [(node.name, node.input[1]) for node in layers_of(onnx.load(conversion.folder / path))]
        for graph, path in (("trunk", conversion.portable.trunk), ("adapt", conversion.portable.adapt))
    }
    pairs = zip(*([(graph, *layer) for layer in found] for graph, found in layers.items()), strict=False)
    found = tuple(LayerError(*entry, 1.0) for pair in pairs for entry in pair)
    monkeypatch.setattr("posesdk_converters.verification.judge.rank_layers", lambda *_, **__: found)
    return [entry.layer for entry in found]


@pytest.fixture
def judged_by(conversion, ranking, monkeypatch):
    """`judged_by(passes)`: a judge that runs nothing, and for each attempt the files that it was given."""

    def make(passes):
        judge = Judge(None, conversion.folder, None, Gate(), lambda _: None, 0)
        seen = []

        def look(variant):
            seen.append(digests(conversion.folder / variant.name))
            return Judged(variant, "none", fault=None if passes(set(variant.float_layers)) else "too far")

        monkeypatch.setattr(judge, "judge", look)
        return judge, seen

    return make


@pytest.mark.parametrize("name", TARGETS)
def test_files_after_the_search_are_those_that_passed_and_their_float_layers_are_named(
    name, conversion, ranking, judged_by
):
    if find_spec(TARGETS[name]) is None:  # not importorskip: NNCF reports to its makers when it is imported plainly
        pytest.skip(f"target {name} needs {TARGETS[name]}")
    judge, seen = judged_by(set(ranking[:NEEDED]).issubset)
    (found,) = judge.convert(find_target(name), conversion, "int8")
    assert found.fault is None
    folder = conversion.folder / f"{name}-int8"
    assert len(seen) == 6
    assert digests(folder) == seen[-1] == seen[3]
    assert digests(folder) != seen[0]
    variant = found.variant
    assert set(ranking[:NEEDED]) <= set(variant.float_layers)
    paths = [conversion.folder / path for path in (variant.trunk, variant.adapt)]
    assert len(variant.float_layers) == sum(map(float_convolutions, paths))


@pytest.mark.parametrize("name", ["onnx"])
def test_files_are_the_first_ones_where_no_search_helps(name, conversion, judged_by):
    judge, seen = judged_by(lambda _: False)
    (found,) = judge.convert(find_target(name), conversion, "int8")
    assert re.fullmatch(r"too far; so it does with the \d+ most sensitive of \d+ layers in float", found.fault)
    assert digests(conversion.folder / f"{name}-int8") == seen[0] != seen[-1]


def write_biased(conversion, name, bias):
    """A variant whose last heatmap layer has that bias."""
    folder = conversion.folder / name
    shutil.copytree(conversion.folder / "portable", folder)
    model = onnx.load(folder / "trunk.onnx")
    (layer,) = (node for node in model.graph.node if node.op_type == "Conv" and "final_layer_cls" in node.input[1])
    stored = next(value for value in model.graph.initializer if value.name == layer.input[2])
    stored.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(stored), bias), stored.name))
    onnx.save(model, folder / "trunk.onnx")
    return Variant(
        name=name, runtime=("onnxruntime",), precision="int8", trunk=f"{name}/trunk.onnx", adapt=f"{name}/adapt.onnx"
    )


@pytest.mark.parametrize(
    ("bias", "fault"), [(np.nan, "values that are not finite"), (-100.0, "mean OKS with the float poses is 0.000")]
)
def test_variant_of_no_numbers_or_of_no_people_misses_the_gate(conversion, pictures, bias, fault):
    photos = [(str(index), image[0]) for index, image in enumerate(pictures(2, seed=4))]
    spec = conversion.model.spec
    with open_pipeline(spec, conversion.folder, conversion.portable, "onnxruntime") as pipeline:
        judge = Judge(spec, conversion.folder, Reference(pipeline, photos), Gate(), lambda _: None, len(photos))
        assert judge.judge(conversion.portable).fault is None
        found = judge.judge(write_biased(conversion, "broken", bias))
    assert fault in found.fault
