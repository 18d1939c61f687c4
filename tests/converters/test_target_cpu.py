"""`--target cpu`: every precision of the tiny model through OpenVINO."""

import hashlib
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from posesdk_converters.calibration import Feeds
from posesdk_converters.target import find_target, portable_variant
from posesdk_runtimes.errors import DeviceUnavailableError
from posesdk_runtimes.registry import open_runtime

# Not importorskip: a plain import of NNCF changes the class of later loggers, and reports to its makers.
pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="int8 needs the [convert] extra")

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def converted(start_conversion):
    """The folder of a bundle with all precisions, its variants by precision, and the conversion's notes."""
    conversion = start_conversion()
    variants = {precision: find_target("cpu").convert(conversion, precision)[0] for precision in PRECISIONS}
    return conversion.folder, variants, conversion.notes


@pytest.fixture
def image(pictures):
    return next(pictures(1, seed=7))


@pytest.fixture
def context(contexts):
    return next(contexts(1, seed=7))


def run(path, feeds, precision="f32", runtime="openvino"):
    opened = open_runtime(path, runtime=runtime, precision=precision, threads=1)
    try:
        return opened.run(feeds)
    finally:
        opened.close()


def correlation(one, other):
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def has_bfloat16():
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def test_variants_say_how_they_are_to_be_run(converted):
    folder, variants, notes = converted
    for precision, variant in variants.items():
        assert (variant.name, variant.precision) == (f"cpu-{precision}", precision)
        assert (variant.runtime, variant.devices) == (("openvino",), ("cpu",))
        assert variant.runtime_precision == ("bf16" if precision == "bf16" else "f32")
        files = {path.name for path in (folder / variant.name).iterdir()}
        assert files == {"trunk.xml", "trunk.bin", "adapt.xml", "adapt.bin"}
    assert set(notes) == {"openvino", "nncf"}


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_float_files_give_the_portable_graphs_outputs(converted, image, context, precision, error):
    folder, variants, _ = converted
    for graph, feeds in (("trunk", {"image": image}), ("adapt", {"context": context})):
        wanted = run(folder / f"portable/{graph}.onnx", feeds, runtime="onnxruntime")
        found = run(folder / getattr(variants[precision], graph), feeds)
        assert set(found) == set(wanted)
        for name, values in wanted.items():
            assert np.abs(found[name] - values).max() <= error * max(1.0, np.abs(values).max())


def test_half_precision_halves_the_weights(converted):
    folder, _, _ = converted
    sizes = {name: (folder / f"cpu-{name}/trunk.bin").stat().st_size for name in ("fp32", "fp16", "int8")}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["int8"] < 0.5 * sizes["fp32"]


def test_int8_follows_the_float_model_at_any_size(converted, pictures, contexts):
    folder, variants, _ = converted
    trunk, adapt = (folder / path for path in (variants["int8"].trunk, variants["int8"].adapt))
    for image in pictures(3, seed=7):
        feeds = {"image": np.concatenate([image, image[:, ::-1]])}
        wanted = run(folder / "portable/trunk.onnx", feeds)
        for name, values in run(trunk, feeds).items():
            assert values.dtype == np.float32
            assert values.shape == wanted[name].shape
            assert correlation(values, wanted[name]) > 0.95
    for count in (1, 5):
        context = np.concatenate([next(contexts(1, seed=seed)) for seed in range(count)])
        wanted = run(folder / "portable/adapt.onnx", {"context": context})["attraction_maps"]
        assert correlation(run(adapt, {"context": context})["attraction_maps"], wanted) > 0.98


def test_int8_takes_the_same_uint8_image(converted):
    folder, variants, _ = converted
    opened = {
        name: open_runtime(folder / path, runtime="openvino")
        for name, path in (("int8", variants["int8"].trunk), ("portable", "portable/trunk.onnx"))
    }
    assert opened["int8"].inputs == opened["portable"].inputs
    assert opened["int8"].inputs[0].dtype == np.uint8
    assert opened["int8"].outputs == opened["portable"].outputs


def test_same_inputs_give_the_same_bytes(converted, start_conversion):
    folder, _, _ = converted
    again = start_conversion()
    for precision in PRECISIONS:
        find_target("cpu").convert(again, precision)
        for path in sorted((again.folder / f"cpu-{precision}").iterdir()):
            first = (folder / f"cpu-{precision}" / path.name).read_bytes()
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(first).digest(), path


def test_fixed_size_takes_one_picture_of_that_size(start_conversion, pictures):
    fixed = start_conversion(
        portable=portable_variant(adapt=True, input_size=(64, 96)), feeds=Feeds(tuple(pictures(1)), ())
    )
    image = next(pictures(1, seed=7))
    wanted = run(fixed.folder / "portable/trunk.onnx", {"image": image})
    for precision in ("fp32", "int8"):
        (variant,) = find_target("cpu").convert(fixed, precision)
        assert variant.input_size == (64, 96)
        opened = open_runtime(fixed.folder / variant.trunk, runtime="openvino")
        assert opened.inputs[0].shape == (1, 64, 96, 3)
        found = opened.run({"image": image})
        opened.close()
        for name, values in wanted.items():
            assert found[name].shape == values.shape
            assert correlation(found[name], values) > (0.9999 if precision == "fp32" else 0.9)


def test_named_layers_stay_float(start_conversion, image, context):
    import onnx

    conversion = start_conversion()
    names = {
        graph: tuple(
            node.name
            for node in onnx.load(conversion.folder / f"portable/{graph}.onnx").graph.node
            if node.op_type == "Conv"
        )
        for graph in ("trunk", "adapt")
    }
    (variant,) = find_target("cpu").convert(conversion, "int8", float_layers=names)
    assert variant.float_layers == names["trunk"] + names["adapt"]
    for graph, feeds in (("trunk", {"image": image}), ("adapt", {"context": context})):
        wanted = run(conversion.folder / f"portable/{graph}.onnx", feeds)
        for name, values in run(conversion.folder / f"cpu-int8/{graph}.xml", feeds).items():
            assert correlation(values, wanted[name]) > 0.999
    (variant,) = find_target("cpu").convert(conversion, "int8", float_layers={"trunk": names["trunk"][:1]})
    assert variant.float_layers == names["trunk"][:1]


def test_unknown_layer_is_refused(start_conversion):
    with pytest.raises(ValueError, match="no convolution node_nowhere in it"):
        find_target("cpu").convert(start_conversion(), "int8", float_layers={"trunk": ("node_nowhere",)})


@pytest.mark.parametrize("feeds", [None, Feeds((), ())])
def test_int8_without_calibration_images_is_refused(start_conversion, feeds):
    with pytest.raises(ValueError, match="int8 needs calibration images"):
        find_target("cpu").convert(start_conversion(feeds=feeds), "int8")


def test_adapt_stays_float_where_nobody_was_found(start_conversion, pictures, context):
    conversion = start_conversion(feeds=Feeds(tuple(pictures(4)), ()))
    find_target("cpu").convert(conversion, "int8")
    assert "adapt is float" in conversion.notes["cpu-int8"]
    wanted = run(conversion.folder / "portable/adapt.onnx", {"context": context})["attraction_maps"]
    found = run(conversion.folder / "cpu-int8/adapt.xml", {"context": context})["attraction_maps"]
    assert np.abs(found - wanted).max() < 1e-5


def test_bfloat16_is_run_in_bfloat16_or_refused_in_one_line(converted):
    folder, variants, _ = converted
    path = folder / variants["bf16"].trunk
    if has_bfloat16():
        opened = open_runtime(path, runtime="openvino", precision="bf16")
        assert opened.precision == "bf16"
        return
    with pytest.raises(DeviceUnavailableError, match="bf16 was asked for") as caught:
        open_runtime(path, runtime="openvino", precision="bf16")
    assert "\n" not in str(caught.value)


def test_quantizing_prints_nothing_and_reports_to_nobody(tmp_path, converted):
    folder, _, _ = converted
    program = f"""
import logging, sys
import numpy as np
from pathlib import Path
from posesdk_converters.nncf_int8 import quantize
from posesdk_converters.openvino_ir import read_graph
images = [np.full((1, 64, 96, 3), level, np.uint8) for level in range(0, 256, 32)]
quantize(read_graph(Path({str(folder / "portable/trunk.onnx")!r})), images)
assert "openvino_telemetry" not in sys.modules
assert logging.getLoggerClass() is logging.Logger
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_nncf_is_quiet_and_others_are_heard(caplog):
    from posesdk_converters.nncf_int8 import import_nncf

    handler = logging.NullHandler()
    logging.getLogger("nncf").addHandler(handler)  # one that belongs to the program, as pytest's own
    import_nncf()
    assert handler.level == logging.NOTSET
    logging.getLogger("nncf").error("unheard")
    logging.getLogger("posesdk").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
