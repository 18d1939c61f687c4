"""Names, defaults and refusals of the registry."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError
from posesdk_runtimes.onnxruntime import OnnxRuntime
from posesdk_runtimes.registry import (
    RUNTIMES,
    available_runtimes,
    device_family,
    open_runtime,
    parse_device,
    runtime_devices,
)


@pytest.mark.parametrize(
    ("text", "device", "family"),
    [
        ("cpu", "cpu", "cpu"),
        ("CPU", "cpu", "cpu"),
        (" cuda ", "cuda:0", "cuda"),
        ("CUDA:1", "cuda:1", "cuda"),
        ("0", "cuda:0", "cuda"),
        ("12", "cuda:12", "cuda"),
        ("GPU", "gpu", "gpu"),
        ("GPU.1", "gpu.1", "gpu"),
        ("NPU", "npu", "npu"),
        ("AUTO", "auto", "auto"),
    ],
)
def test_devices_have_one_spelling(text: str, device: str, family: str) -> None:
    assert parse_device(text) == device
    assert device_family(device) == family


@pytest.mark.parametrize("text", ["", "cuda:", "cuda:x", "-1", "gpu:1", "cpu:0", "tpu", "cuda:0:1", "cpu\n0"])
def test_unknown_devices_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"'cuda:N'.* got"):
        parse_device(text)


def test_unknown_runtime_is_refused_with_the_known_ones(graph: Path) -> None:
    with pytest.raises(ValueError, match=r"auto, openvino, onnxruntime, .*got 'onnx'"):
        open_runtime(graph, runtime="onnx")


@pytest.mark.parametrize(
    ("name", "asked", "error", "message"),
    [
        pytest.param("tiny.pt", {}, ValueError, r"\.onnx, \.xml, \.tflite or \.engine", id="file type"),
        pytest.param("tiny.onnx", {"threads": 0}, ValueError, "at least 1 thread, got 0", id="threads"),
        pytest.param(
            "tiny.onnx",
            {"runtime": "onnxruntime", "precision": "bf16"},
            ValueError,
            "f32 for onnxruntime",
            id="precision",
        ),
        pytest.param(
            "tiny.onnx",
            {"runtime": "openvino", "device": "cuda"},
            DeviceUnavailableError,
            "openvino knows the devices cpu, gpu, npu",
            id="openvino has no cuda",
        ),
        pytest.param(
            "tiny.onnx",
            {"runtime": "onnxruntime", "device": "NPU"},
            DeviceUnavailableError,
            "onnxruntime knows the devices cpu, cuda",
            id="onnxruntime has no npu",
        ),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    name: str, asked: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_runtime(name, **asked)  # type: ignore[arg-type]


def test_automatic_choice_on_the_cpu_is_openvino_where_it_is_installed(graph: Path) -> None:
    expected = "OpenVINORuntime" if importlib.util.find_spec("openvino") else "OnnxRuntime"
    assert type(open_runtime(graph)).__name__ == expected


def test_automatic_choice_for_cuda_is_onnxruntime(graph: Path) -> None:
    if "cuda" in runtime_devices("onnxruntime"):
        assert isinstance(open_runtime(graph, device="0"), OnnxRuntime)
    else:
        with pytest.raises(DeviceUnavailableError, match="onnxruntime-gpu"):
            open_runtime(graph, device="0")


def test_a_library_that_is_missing_is_named_with_its_install_command(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, command in (
        ("openvino", r"pip install 'posesdk\[openvino\]'"),
        ("onnxruntime", "pip install onnxruntime"),
    ):
        monkeypatch.setitem(sys.modules, name, None)  # makes `import name` raise ImportError
        with pytest.raises(MissingDependencyError, match=command):
            open_runtime(graph, runtime=name)
        with pytest.raises(MissingDependencyError, match=command):
            runtime_devices(name)


MODULES = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}


def installed(name: str) -> bool:
    return any(importlib.util.find_spec(module) is not None for module in MODULES[name])


def test_listing_says_what_is_installed_in_which_version() -> None:
    listed = {info.name: info for info in available_runtimes()}
    assert list(listed) == list(RUNTIMES)
    for name in MODULES:
        info = listed[name]
        assert (info.version is not None) == installed(name)
        assert ("cpu" in info.devices) == installed(name)
    if listed["openvino"].version:
        assert listed["openvino"].version == importlib.metadata.version("openvino")


def test_listing_imports_no_vendor_library() -> None:
    program = (
        f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
        "from posesdk_runtimes.registry import available_runtimes\n"
        "available_runtimes()\n"
        "vendors = {'openvino', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'tensorrt'}\n"
        "assert not vendors & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(MODULES))
def test_an_installed_library_finds_the_cpu(name: str) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    assert "cpu" in runtime_devices(name)
