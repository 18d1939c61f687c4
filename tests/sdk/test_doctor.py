import importlib.util
import shutil
import sys
from types import ModuleType

import pytest

from posesdk.doctor import examine
from posesdk_runtimes import registry
from posesdk_runtimes.errors import DeviceUnavailableError
from posesdk_runtimes.registry import RuntimeInfo
from posesdk_runtimes.tensorrt import cuda
from posesdk_runtimes.tensorrt import runtime as tensorrt


def findings() -> dict:
    return {finding.name: finding for finding in examine()}


def test_a_machine_that_runs_these_tests_is_not_broken():
    found = findings()
    assert "broken" not in {finding.state for finding in found.values()}
    for name in ("Python", "posesdk", "numpy", "cv2", "pydantic"):
        assert (found[name].state, found[name].advice) == ("ok", "")
    assert {"video files", "cameras", "default model", "cache folder", "GStreamer"} <= found.keys()
    assert "default" in found["shipped models"].detail


def test_whatever_is_not_well_comes_with_advice():
    for finding in examine():
        assert bool(finding.advice) == (finding.state != "ok")


def test_a_missing_core_package_breaks_and_names_what_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name))
    finding = findings()["cv2"]
    assert (finding.state, finding.advice) == ("broken", "pip install opencv-python-headless")


def test_no_runtime_at_all_is_broken(monkeypatch):
    import posesdk_runtimes.registry

    nothing = (RuntimeInfo("onnxruntime", ("cpu",), ("f32",), "pip install onnxruntime"),)
    monkeypatch.setattr(posesdk_runtimes.registry, "available_runtimes", lambda: nothing)
    found = findings()
    assert (found["onnxruntime"].state, found["inference"].state) == ("missing", "broken")


def test_gstreamer_without_its_tools_is_missing_with_the_packages_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = findings()["GStreamer tools"]
    assert finding.state == "missing"
    assert "gstreamer1.0-tools" in finding.advice


def test_a_cache_that_is_lost_at_a_restart_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("POSESDK_CACHE", str(tmp_path / "cache"))
    assert "POSESDK_CACHE" in findings()["cache folder"].advice
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    assert findings()["cache folder"].state == "ok"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_jetson_whose_environment_hides_the_systems_tensorrt_is_told_how_to_make_it_anew(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(tensorrt, "_system_folders", lambda: [str(tmp_path)])
    advice = findings()["tensorrt"].advice
    assert str(tmp_path) in advice
    assert "--system-site-packages" in advice
    monkeypatch.setattr(tensorrt, "_system_folders", list)
    monkeypatch.setattr(registry, "JETSON_SIGNS", (tmp_path,))
    assert "python3-libnvinfer" in findings()["tensorrt"].advice
    monkeypatch.setattr(registry, "JETSON_SIGNS", (tmp_path / "no",))
    assert "pip install tensorrt" in findings()["tensorrt"].advice


def test_tensorrt_without_a_driver_is_missing_and_the_advice_is_the_driver(monkeypatch):
    import posesdk_runtimes.registry

    def no_driver():
        raise DeviceUnavailableError("cannot look for NVIDIA GPUs: error 35; install or update the NVIDIA driver; so")

    there = (RuntimeInfo("tensorrt", ("cuda",), ("f32",), "pip install tensorrt", "10.3.0"),)
    module = ModuleType("tensorrt")
    module.__version__ = "10.3.0"
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(posesdk_runtimes.registry, "available_runtimes", lambda: there)
    monkeypatch.setattr(cuda, "load_cuda", no_driver)
    finding = findings()["tensorrt"]
    assert (finding.detail, finding.advice) == (
        "cannot look for NVIDIA GPUs: error 35",
        "install or update the NVIDIA driver; so",
    )
    module.__version__ = "8.5.2.2"
    finding = findings()["tensorrt"]
    assert "8.5.2.2 is too old: 8.6 or newer is needed" in finding.detail + finding.advice
