"""`--target mobile`: every precision of the tiny model through LiteRT."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")

from posesdk.bundle import open_bundle
from posesdk.spec import InputSpec
from posesdk_converters.calibration import Feeds
from posesdk_converters.target import find_target
from posesdk_converters.targets.mobile import square
from posesdk_converters.tflite.graph import read_operators
from posesdk_converters.tflite.layers import match_convolutions
from posesdk_converters.tflite.quiet import quiet
from posesdk_runtimes.errors import GateError, MissingDependencyError
from posesdk_runtimes.registry import open_runtime

MISSING = [name for name in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING} of the [convert-mobile] extra")

PRECISIONS = ("fp32", "fp16", "int8")
SIZE = (96, 96)
FILES = [(precision, graph) for precision in PRECISIONS for graph in ("trunk", "adapt")]


@pytest.fixture(scope="module")
def conversion(start_conversion):
    return start_conversion()


@pytest.fixture(scope="module")
def variants(conversion):
    """The variants by precision; their files are in the conversion's folder."""
    return {precision: find_target("mobile").convert(conversion, precision)[0] for precision in PRECISIONS}


@pytest.fixture
def image():
    return np.random.default_rng(7).integers(0, 256, (1, 12, 12, 3), np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture
def feeds(image, contexts):
    return {"trunk": {"image": image}, "adapt": {"context": next(contexts(1, seed=7))}}


def run(path, feeds):
    opened = open_runtime(path, runtime="tflite" if path.suffix == ".tflite" else "onnxruntime", threads=1)
    try:
        return opened.run(feeds)
    finally:
        opened.close()


def convolutions_of(conversion, graph):
    """Conv nodes of the portable graph and the operators that they became."""
    operators = read_operators((conversion.folder / f"mobile-fp32/{graph}.tflite").read_bytes())
    return match_convolutions(operators, conversion.folder / f"portable/{graph}.onnx")


def correlation(one, other):
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_variants_say_how_they_are_to_be_run(conversion, variants):
    for precision, variant in variants.items():
        assert (variant.name, variant.precision) == (f"mobile-{precision}", precision)
        assert (variant.runtime, variant.devices) == (("tflite",), ("cpu",))
        assert variant.input_size == SIZE
        files = {path.name for path in (conversion.folder / variant.name).iterdir()}
        assert files == {"trunk.tflite", "adapt.tflite"}
    assert set(conversion.notes) == {"litert-torch", "ai-edge-quantizer"}


@pytest.mark.parametrize(
    ("source", "size"),
    [
        (InputSpec(resize="long", side=320, multiple=32), (320, 320)),
        (InputSpec(resize="short", side=500, multiple=64), (512, 512)),
        (InputSpec(resize="fixed", size=(192, 256), multiple=64), (192, 256)),
    ],
)
def test_size_takes_images_of_either_orientation(source, size):
    assert square(source) == size


def test_float32_gives_the_portable_graphs_outputs(conversion, variants, image, contexts):
    trunk, adapt = (conversion.folder / path for path in (variants["fp32"].trunk, variants["fp32"].adapt))
    pairs = [(trunk, "trunk", {"image": image})]
    for count in (1, 2, 5, 30):
        context = np.concatenate([next(contexts(1, seed=seed)) for seed in range(count)])
        pairs.append((adapt, "adapt", {"context": context}))
    for path, graph, feeds in pairs:
        wanted = run(conversion.folder / f"portable/{graph}.onnx", feeds)
        found = run(path, feeds)
        assert set(found) == set(wanted)
        for name, values in wanted.items():
            assert found[name].shape == values.shape
            assert np.abs(found[name] - values).max() <= 1e-4 * max(1.0, np.abs(values).max())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_takes_uint8_images_and_gives_float32(conversion, variants, precision):
    variant = variants[precision]
    trunk, adapt = (open_runtime(conversion.folder / path) for path in (variant.trunk, variant.adapt))
    assert [(port.name, port.shape, port.dtype) for port in trunk.inputs] == [("image", (1, *SIZE, 3), np.uint8)]
    assert {(port.name, port.dtype.name) for port in trunk.outputs} == {
        (name, "float32") for name in ("heatmaps", "offsets", "embedding")
    }
    assert [(port.name, port.shape, port.dtype) for port in adapt.inputs] == [("context", (None, 68, 5, 5), np.float32)]
    assert [(port.name, port.dtype) for port in adapt.outputs] == [("attraction_maps", np.float32)]


@pytest.mark.parametrize(("precision", "graph"), FILES)
def test_tensors_themselves_have_the_names_of_the_signature(conversion, variants, precision, graph):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(conversion.folder / getattr(variants[precision], graph)))
    (signature,) = interpreter.get_signature_list().values()
    assert sorted(signature["inputs"]) == sorted(detail["name"] for detail in interpreter.get_input_details())
    assert sorted(signature["outputs"]) == sorted(detail["name"] for detail in interpreter.get_output_details())


@pytest.mark.parametrize(("precision", "graph"), FILES)
def test_xnnpack_takes_everything_but_the_cast_of_the_image(conversion, variants, feeds, precision, graph):
    from ai_edge_litert.interpreter import Interpreter

    path = conversion.folder / getattr(variants[precision], graph)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], next(iter(feeds[graph].values())))
    interpreter.invoke()
    inside = {operator.name for operator in read_operators(path.read_bytes())}
    inside -= {detail["name"] for detail in interpreter.get_output_details()}
    found = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details() if detail["name"] in inside}
    assert len(found) == len(inside) > 10
    # A tensor between two operators has memory only where one of them is not in the delegate.
    assert {name for name, index in found.items() if has_memory(interpreter, index)} == (
        {"cast_0"} if graph == "trunk" else set()
    )


def has_memory(interpreter, index):
    try:
        interpreter.get_tensor(index)
    except ValueError:
        return False
    return True


def test_smaller_precisions_make_smaller_files(conversion, variants):
    sizes = {name: (conversion.folder / variant.trunk).stat().st_size for name, variant in variants.items()}
    weights = 4 * sum(tensor.numel() for tensor in conversion.model.backbone.parameters())
    assert sizes["fp32"] - sizes["fp16"] > 0.4 * weights
    assert sizes["fp16"] - sizes["int8"] > 0.05 * weights


def test_float16_differs_by_its_rounding_only(conversion, variants, feeds):
    for graph, fed in feeds.items():
        wanted = run(conversion.folder / getattr(variants["fp32"], graph), fed)
        for name, values in run(conversion.folder / getattr(variants["fp16"], graph), fed).items():
            assert 0 < np.abs(values - wanted[name]).max() < 1e-2 * np.abs(wanted[name]).max()


def test_int8_follows_the_float_model(conversion, variants, feeds):
    for graph, fed in feeds.items():
        wanted = run(conversion.folder / f"portable/{graph}.onnx", fed)
        for name, values in run(conversion.folder / getattr(variants["int8"], graph), fed).items():
            assert correlation(values, wanted[name]) > 0.95


@pytest.mark.parametrize(("precision", "graph"), FILES)
def test_same_inputs_give_the_same_bytes(conversion, variants, mobile_bundle, precision, graph):
    path = getattr(variants[precision], graph)  # the bundle is another conversion of the same model and pictures
    assert open_bundle(mobile_bundle).read(path) == (conversion.folder / path).read_bytes()


def test_convolutions_are_matched_by_their_weights(conversion, variants):
    for graph in ("trunk", "adapt"):
        operators = read_operators((conversion.folder / f"mobile-fp32/{graph}.tflite").read_bytes())
        portable = conversion.folder / f"portable/{graph}.onnx"
        found = match_convolutions(operators, portable)
        assert found == match_convolutions(operators[::-1], portable)
        assert len(set(found.values())) == len(found) == sum(entry.kind == "CONV_2D" for entry in operators)
        with pytest.raises(GateError, match=f"has {len(found)} convolutions"):
            match_convolutions([entry for entry in operators if entry.name != found[next(iter(found))]], portable)


def test_layers_before_outputs_and_of_statistics_stay_float(conversion, variants):
    for graph, count in (("trunk", 3), ("adapt", 4)):  # heads; the attentive norm's three layers and the last one
        content = (conversion.folder / getattr(variants["int8"], graph)).read_bytes()
        floats = [entry for entry in read_operators(content) if entry.kind == "CONV_2D" and entry.weights is not None]
        named = [name for name in convolutions_of(conversion, graph) if name in variants["int8"].float_layers]
        assert len(floats) == len(named) == count


def test_named_layers_stay_float(conversion, variants, feeds):
    target = find_target("mobile")
    paths = {graph: conversion.folder / getattr(variants["int8"], graph) for graph in ("trunk", "adapt")}
    first = {graph: path.read_bytes() for graph, path in paths.items()}
    names = {graph: tuple(convolutions_of(conversion, graph)) for graph in paths}
    try:
        (variant,) = target.convert(conversion, "int8", float_layers=names)
        assert variant.float_layers == names["trunk"] + names["adapt"]
        for graph, path in paths.items():
            kinds = [(entry.kind, entry.weights is None) for entry in read_operators(path.read_bytes())]
            assert ("CONV_2D", True) not in kinds
            wanted = run(conversion.folder / f"portable/{graph}.onnx", feeds[graph])
            for name, values in run(path, feeds[graph]).items():
                assert correlation(values, wanted[name]) > 0.99
        (variant,) = target.convert(conversion, "int8", float_layers={"trunk": names["trunk"][:1]})
        assert set(variant.float_layers) == {names["trunk"][0], *variants["int8"].float_layers}
        with pytest.raises(ValueError, match="no convolution node_nowhere in trunk"):
            target.convert(conversion, "int8", float_layers={"trunk": ("node_nowhere",)})
    finally:
        target.convert(conversion, "int8")
    assert {graph: path.read_bytes() for graph, path in paths.items()} == first


@pytest.mark.parametrize("missing", [None, Feeds((), ())])
def test_int8_without_calibration_images_is_refused(conversion, missing):
    with pytest.raises(ValueError, match="int8 needs calibration images"):
        find_target("mobile").convert(replace(conversion, feeds=missing), "int8")


def test_adapt_stays_float_where_nobody_was_found(conversion, variants, start_conversion, pictures, monkeypatch):
    files = {graph: (conversion.folder / getattr(variants["fp32"], graph)).read_bytes() for graph in ("trunk", "adapt")}
    # litert-torch, which takes seconds, has made the same graphs before.
    monkeypatch.setattr("posesdk_converters.tflite.convert.convert_trunk", lambda model, size: files["trunk"])
    monkeypatch.setattr("posesdk_converters.tflite.convert.convert_adapt", lambda model: files["adapt"])
    crowdless = start_conversion(feeds=Feeds(tuple(pictures(12)), ()))
    (variant,) = find_target("mobile").convert(crowdless, "int8")
    assert "adapt is float" in crowdless.notes["mobile-int8"]
    assert (crowdless.folder / variant.adapt).read_bytes() == files["adapt"]


@pytest.mark.parametrize(
    ("module", "precision", "message"),
    [
        ("litert_torch", "fp32", "litert-torch cannot be imported"),
        ("ai_edge_quantizer.quantizer", "fp16", "ai-edge-quantizer cannot be imported"),
    ],
)
def test_missing_converter_says_what_to_install(conversion, start_conversion, monkeypatch, module, precision, message):
    monkeypatch.setitem(sys.modules, module, None)
    start = start_conversion() if precision == "fp32" else conversion
    with pytest.raises(MissingDependencyError, match=rf"{message}.*pip install 'posesdk\[convert-mobile\]'"):
        find_target("mobile").convert(start, precision)


def test_only_known_notes_are_kept_from_the_screen(capfd):
    with quiet():
        os.write(2, b"I0000 00:00:1.2  99 port.cc:153] oneDNN custom operations are on.\nspin")
        deadline = time.monotonic() + 10
        seen = ""
        while "spin" not in seen and time.monotonic() < deadline:  # it comes while the work goes on
            time.sleep(0.05)
            seen += capfd.readouterr().err
        assert seen == "spin"
        os.write(
            2, b"I0000 00:00:1.2  99 a\nE0000 00:00:1.2  99 b\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU."
        )
        os.write(2, b"\nInteresting")
    assert capfd.readouterr().err == "E0000 00:00:1.2  99 b\nInteresting"


AUDITED = """
import sys
seen = []
def audit(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"):
        seen.append((event, str(values)))
sys.addaudithook(audit)
import torch
from posesdk_converters.tflite.convert import import_converter
from posesdk_converters.tflite.graph import name_tensors
from posesdk_converters.tflite.quantize import observe_ranges, quantize, store_float16
from posesdk_converters.tflite.quiet import quiet
converter = import_converter()
with quiet():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1)).eval()
    content = name_tensors(converter.convert(layers, (torch.zeros(1, 3, 9, 9),)).model_content())
store_float16(content)
quantize(content, observe_ranges(content, [torch.ones(1, 3, 9, 9).numpy()]), [])
assert not seen, seen
"""


def test_converting_prints_nothing_reports_to_nobody_and_leaves_nothing_behind(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TORCHINDUCTOR_CACHE_DIR")}
    environment |= {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", AUDITED], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
