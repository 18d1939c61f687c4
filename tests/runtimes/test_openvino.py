"""OpenVINO alone: the arithmetic is the one that was asked for, names survive, nobody is called."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posesdk_runtimes.errors import ArtifactError, DeviceUnavailableError
from posesdk_runtimes.openvino import OpenVINORuntime, import_openvino

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)
openvino = import_openvino()


def image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)


def compiled(runtime: OpenVINORuntime) -> Any:
    assert runtime._forms is not None
    return runtime._forms.flexible.compiled


def has_bfloat16() -> bool:
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_precision_read_back_is_f32_also_where_the_default_is_not(graph: Path) -> None:
    runtime = OpenVINORuntime(graph)
    assert runtime.precision == "f32"
    assert compiled(runtime).get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled(runtime).get_property("PERFORMANCE_HINT") == "LATENCY"


def test_bfloat16_is_used_only_when_asked_for_and_shows_in_the_numbers(graph: Path) -> None:
    if not has_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    low = OpenVINORuntime(graph, precision="bf16")
    assert low.precision == "bf16"
    feeds = {"image": image()}
    exact, rounded = OpenVINORuntime(graph).run(feeds)["maps"], low.run(feeds)["maps"]
    assert np.abs(exact - rounded).max() > 1e-4 * exact.max()


def test_a_precision_that_the_device_replaces_is_refused(graph: Path) -> None:
    if not has_bfloat16():
        pytest.skip("this CPU has no bfloat16, in which others compute what is asked for in f16")
    with pytest.raises(DeviceUnavailableError, match=r"tiny\.onnx on CPU in bf16, but f16 was asked for"):
        OpenVINORuntime(graph, precision="f16")


def test_unknown_precision_names_the_known_ones(graph: Path) -> None:
    with pytest.raises(ValueError, match="f32, f16, bf16, got 'fp32'"):
        OpenVINORuntime(graph, precision="fp32")


def test_threads_are_taken(graph: Path) -> None:
    assert compiled(OpenVINORuntime(graph, threads=1)).get_property("INFERENCE_NUM_THREADS") == 1


def test_ir_files_keep_names_and_numbers(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.xml"
    openvino.save_model(openvino.Core().read_model(graph), path, compress_to_fp16=False)
    portable, converted = OpenVINORuntime(graph), OpenVINORuntime(path)
    assert (converted.inputs, converted.outputs) == (portable.inputs, portable.outputs)
    feeds = {"image": image()}
    np.testing.assert_array_equal(converted.run(feeds)["maps"], portable.run(feeds)["maps"])


def test_ir_without_its_weights_is_an_artifact_error(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.xml"
    openvino.save_model(openvino.Core().read_model(graph), path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError, match=r"tiny\.xml"):
        OpenVINORuntime(path)


def test_auto_names_the_device_that_it_took(graph: Path) -> None:
    found = [name.lower() for name in openvino.Core().available_devices]
    runtime = OpenVINORuntime(graph, device="auto")
    assert runtime.device in found
    assert runtime.precision == "f32"


@pytest.mark.parametrize("device", ["gpu.7", "npu"])
def test_a_device_that_is_not_there_is_refused_with_what_is(graph: Path, device: str) -> None:
    if device.upper() in openvino.Core().available_devices:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(DeviceUnavailableError, match=rf"on {device}: OpenVINO finds .*CPU"):
        OpenVINORuntime(graph, device=device)


_AUDITED = """
import sys
seen = []
def audit(event, values):
    writes = event == "open" and isinstance(values[1], str) and set(values[1]) & set("wax+")
    if event.startswith(("socket.", "subprocess.", "os.mkdir", "os.fork", "urllib.")) or writes:
        seen.append((event, str(values)))
sys.dont_write_bytecode = True
sys.addaudithook(audit)
import numpy
from posesdk_runtimes.openvino import OpenVINORuntime
OpenVINORuntime(sys.argv[1]).run({"image": numpy.zeros((1, 8, 8, 3), numpy.uint8)})
assert not seen, seen
assert not [name for name in sys.modules if "openvino_telemetry" in name]
"""


def test_loading_and_running_reports_to_nobody_and_writes_nothing(graph: Path, tmp_path: Path) -> None:
    # CI would switch the telemetry off by itself, and so would a home that is not there.
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", _AUDITED, str(graph)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import os, signal, sys, time
from posesdk_runtimes.openvino import OpenVINORuntime
from posesdk_runtimes.registry import runtime_devices
first, second = (OpenVINORuntime(sys.argv[1]) for _ in range(2))
first.close()
second.close()
del first, second
runtime_devices("openvino")
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_graphs_were_closed_does_not_end_the_process(graph: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(graph)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["interrupted"]), done.stderr
