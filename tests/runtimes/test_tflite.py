"""LiteRT alone: names come from the signature, persons are free, integers are hidden, the screen stays clean."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from posesdk_runtimes.errors import ArtifactError, DeviceUnavailableError, MissingDependencyError, RuntimeFault
from posesdk_runtimes.registry import open_runtime, runtime_devices
from posesdk_runtimes.tflite.runtime import TFLiteRuntime, import_interpreter

pytest.importorskip("ai_edge_litert", reason="the .tflite graphs are made with ai-edge-litert")


def write_halves(module: ModuleType, path: Path, shape: tuple[int, ...], key: str | None = "serving_default") -> Path:
    """context -> attraction_maps, half of it, without a free dimension."""
    build = module.GraphBuilder()
    context, maps = build.tensor("in_7", shape, np.float32), build.tensor("out_9", shape, np.float32)
    half = build.constant("half", np.full(1, 0.5, np.float32))
    options = (module.schema.BuiltinOptions.MulOptions, module.schema.MulOptionsT())
    build.operator("MUL", [context, half], maps, options)
    written: Path = build.write(path, {"context": context}, {"attraction_maps": maps}, key=key)
    return written


def write_baked(module: ModuleType, path: Path) -> Path:
    """context [1, 6] -> attraction_maps [1, 2, 3] by a reshape that knows of one person only."""
    build = module.GraphBuilder()
    context, maps = build.tensor("a", (1, 6), np.float32), build.tensor("b", (1, 2, 3), np.float32)
    shape = build.constant("shape", np.array([1, 2, 3], np.int32))
    options = module.schema.ReshapeOptionsT()
    options.newShape = [1, 2, 3]
    build.operator("RESHAPE", [context, shape], maps, (module.schema.BuiltinOptions.ReshapeOptions, options))
    written: Path = build.write(path, {"context": context}, {"attraction_maps": maps}, key="serving_default")
    return written


def write_integers(module: ModuleType, path: Path) -> Path:
    """int8 in steps of 0.5 with zero point 3 -> int8 in steps of 0.25 with zero point -10: the same numbers."""
    build = module.GraphBuilder()
    left = build.tensor("a", (None, 4), np.int8, (0.5, 3))
    right = build.tensor("b", (None, 4), np.int8, (0.25, -10))
    build.operator("QUANTIZE", [left], right, version=2)
    written: Path = build.write(path, {"context": left}, {"attraction_maps": right}, key="serving_default")
    return written


def test_names_come_from_the_signature_and_without_one_from_the_tensors(
    tflite_graph: ModuleType, tmp_path: Path
) -> None:
    for key, names in (("serving_default", ("context", "attraction_maps")), ("other", ("context", "attraction_maps"))):
        runtime = TFLiteRuntime(write_halves(tflite_graph, tmp_path / "a.tflite", (1, 6), key))
        assert (runtime.inputs[0].name, runtime.outputs[0].name) == names
    plain = TFLiteRuntime(write_halves(tflite_graph, tmp_path / "b.tflite", (1, 6), None))
    assert (plain.inputs[0].name, plain.outputs[0].name) == ("in_7", "out_9")


def test_a_file_made_for_one_person_takes_any_number(tflite_graph: ModuleType, tmp_path: Path) -> None:
    runtime = TFLiteRuntime(write_halves(tflite_graph, tmp_path / "a.tflite", (1, 6, 5, 5)), threads=1)
    assert runtime.inputs[0].shape == runtime.outputs[0].shape == (None, 6, 5, 5)
    for count in (3, 1, 30, 2, 2, 0):
        context = np.random.default_rng(count).random((count, 6, 5, 5), dtype=np.float32)
        np.testing.assert_array_equal(runtime.run({"context": context})["attraction_maps"], context / 2)


def test_a_file_that_can_only_one_person_says_so_and_still_runs(tflite_graph: ModuleType, tmp_path: Path) -> None:
    runtime = TFLiteRuntime(write_baked(tflite_graph, tmp_path / "a.tflite"))
    assert (runtime.inputs[0].shape, runtime.outputs[0].shape) == ((1, 6), (1, 2, 3))
    with pytest.raises(ValueError, match=r"shape \[1, 6\], got \[2, 6\]"):
        runtime.run({"context": np.zeros((2, 6), np.float32)})
    context = np.arange(6, dtype=np.float32)[None]
    np.testing.assert_array_equal(runtime.run({"context": context})["attraction_maps"], context.reshape(1, 2, 3))


def test_integers_inside_are_floats_outside(tflite_graph: ModuleType, tmp_path: Path) -> None:
    runtime = TFLiteRuntime(write_integers(tflite_graph, tmp_path / "a.tflite"))
    assert {port.dtype for port in (*runtime.inputs, *runtime.outputs)} == {np.dtype(np.float32)}
    # Steps of 0.5, ties to even; int8 ends at (127 - 3) / 2 = 62, and on the way out at (127 + 10) / 4 = 34.25.
    values = np.array([[1.0, -2.7, 0.2, 999.0], [0.75, -999.0, 30.0, -0.5]], np.float32)
    expected = np.array([[1.0, -2.5, 0.0, 34.25], [1.0, -29.5, 30.0, -0.5]], np.float32)
    np.testing.assert_array_equal(runtime.run({"context": values})["attraction_maps"], expected)


def test_threads_reach_the_interpreter_and_give_the_same_numbers(
    convolution_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = import_interpreter(), []

    def interpreter(**settings: Any) -> Any:
        asked.append(settings["num_threads"])
        return real(**settings)

    monkeypatch.setattr("posesdk_runtimes.tflite.runtime.import_interpreter", lambda: interpreter)
    image = np.random.default_rng(1).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    one, two, some = (
        TFLiteRuntime(convolution_tflite, threads=count).run({"image": image})["maps"] for count in (1, 2, None)
    )
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(one, some, rtol=1e-6, atol=1e-3)
    assert asked[:2] == [1, 2]
    assert 1 <= asked[2] <= 4
    monkeypatch.setattr("posesdk_runtimes.tflite.runtime._usable_cores", lambda: 64)
    TFLiteRuntime(convolution_tflite)
    interpreter.__module__ = "tflite_runtime.interpreter"
    TFLiteRuntime(convolution_tflite)
    assert asked[3:] == [4, 1]


def test_a_picture_without_pixels_is_a_runtime_fault(convolution_tflite: Path) -> None:
    runtime = TFLiteRuntime(convolution_tflite)
    with pytest.raises(RuntimeFault, match="without elements"):
        runtime.run({"image": np.zeros((1, 0, 9, 3), np.uint8)})
    assert runtime.run({"image": np.zeros((1, 9, 9, 3), np.uint8)})["maps"].shape == (1, 4, 7, 7)


def test_other_devices_are_refused(convolution_tflite: Path) -> None:
    with pytest.raises(ValueError, match="expected the device 'cpu'"):
        TFLiteRuntime(convolution_tflite, device="gpu")
    with pytest.raises(DeviceUnavailableError, match="tflite knows the devices cpu, not 'cuda'"):
        open_runtime(convolution_tflite, device="cuda")


def test_the_file_type_chooses_the_runtime(convolution_tflite: Path) -> None:
    assert isinstance(open_runtime(convolution_tflite), TFLiteRuntime)


def test_missing_libraries_are_named_with_what_to_install(
    convolution_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)  # makes the import raise ImportError
    with pytest.raises(MissingDependencyError, match=r"`pip install 'posesdk\[tflite\]'`") as caught:
        TFLiteRuntime(convolution_tflite)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingDependencyError, match=r"pip install 'posesdk\[tflite\]'"):
        runtime_devices("tflite")


def test_tflite_runtime_stands_in_where_litert_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("tflite_runtime.interpreter")
    stand_in.Interpreter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", stand_in)
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.14.0")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert import_interpreter() is object
    monkeypatch.setattr(np, "__version__", "2.0.1")
    with pytest.raises(ImportError, match=r"tflite-runtime 2\.14\.0 needs numpy below 2, and numpy 2\.0\.1 is"):
        import_interpreter()


def test_a_library_that_is_too_old_says_so(convolution_tflite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.9.3")
    with pytest.raises(MissingDependencyError, match=r"ai-edge-litert 0\.9\.3 is too old, 2\.0 or newer is needed"):
        TFLiteRuntime(convolution_tflite)


def test_what_is_no_tflite_file_is_refused_before_the_library_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posesdk_runtimes.tflite.runtime.import_interpreter", lambda: object)
    path = tmp_path / "a.tflite"
    noise = np.random.default_rng(1).bytes(2000)
    for content in (b"\x08\0\0\0ONNX" + bytes(100), noise[:4] + b"TFL3" + noise, b"\x08\0\0\0TFL3", b"\x08\0"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"a\.tflite: it is no TensorFlow Lite file"):
            TFLiteRuntime(path)


LOUD = """
import os, sys
import numpy
from posesdk_runtimes.tflite.runtime import TFLiteRuntime
for path in sys.argv[1:]:
    runtime = TFLiteRuntime(path)
    runtime.run({spec.name: numpy.ones([side or 8 for side in spec.shape], spec.dtype) for spec in runtime.inputs})
os.write(2, b"mine")
"""


def test_loading_and_running_writes_nothing_on_the_screen_or_at_home(
    tflite_graph: ModuleType, convolution_tflite: Path, tmp_path: Path
) -> None:
    halves = write_halves(tflite_graph, tmp_path / "a.tflite", (1, 6))
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    for order in ([convolution_tflite, halves], [halves, convolution_tflite]):
        command = [sys.executable, "-c", LOUD, *map(str, order)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "mine")
    assert list(home.iterdir()) == []


def test_what_others_write_while_a_graph_is_loaded_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    from posesdk_runtimes.tflite import greeting as tflite_greeting

    tflite_greeting._greeted.clear()
    with tflite_greeting.without_greeting():
        os.write(2, b"first\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nlast\n")
    assert capfd.readouterr().err == "first\nlast\n"
    assert tflite_greeting._greeted.is_set()


@pytest.mark.parametrize("closed", [True, False])
def test_a_closed_standard_error_does_not_matter(convolution_tflite: Path, closed: bool) -> None:
    program = ("import os; os.close(2)\n" if closed else "") + LOUD.replace('os.write(2, b"mine")', "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(convolution_tflite)], capture_output=True, check=False, env=environment
    )
    assert done.returncode == 0
