import importlib.util
import shutil

from posesdk.doctor import examine
from posesdk_runtimes.registry import RuntimeInfo


def findings() -> dict:
    return {finding.name: finding for finding in examine()}


def test_a_machine_that_runs_these_tests_is_not_broken():
    found = findings()
    assert "broken" not in {finding.state for finding in found.values()}
    for name in ("Python", "posesdk", "numpy", "cv2", "pydantic"):
        assert (found[name].state, found[name].advice) == ("ok", "")
    assert {"video files", "cameras", "default model", "cache folder", "GStreamer"} <= found.keys()


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
    finding = findings()["GStreamer"]
    assert finding.state == "missing"
    assert "gstreamer1.0-tools" in finding.advice


def test_a_cache_that_is_lost_at_a_restart_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("POSESDK_CACHE", str(tmp_path / "cache"))
    assert "POSESDK_CACHE" in findings()["cache folder"].advice
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    assert findings()["cache folder"].state == "ok"
