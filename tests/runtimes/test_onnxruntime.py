"""ONNX Runtime alone: a device is used or refused, never replaced."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from posesdk_runtimes.errors import DeviceUnavailableError
from posesdk_runtimes.onnxruntime import OnnxRuntime, import_onnxruntime

if importlib.util.find_spec("onnxruntime") is None:
    pytest.skip("onnxruntime is not installed", allow_module_level=True)
onnxruntime = import_onnxruntime()
CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(CUDA, reason="this ONNX Runtime has CUDA")
def test_cuda_without_its_provider_is_refused_with_what_to_do(graph: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"on cuda:0: .*CPUExecutionProvider.*install onnxruntime-gpu"):
        OnnxRuntime(graph, device="cuda:0")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
@pytest.mark.skipif(CUDA, reason="this ONNX Runtime has CUDA")
def test_cuda_that_is_offered_but_does_not_start_is_refused(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="cuda:0"):
        OnnxRuntime(graph, device="cuda:0")
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="this ONNX Runtime has no CUDA")
def test_cuda_gives_the_numbers_of_the_cpu(graph: Path) -> None:
    feeds = {"image": np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)}
    expected = OnnxRuntime(graph).run(feeds)["maps"]
    np.testing.assert_allclose(OnnxRuntime(graph, device="cuda:0").run(feeds)["maps"], expected, rtol=1e-2, atol=0.5)


def test_session_does_not_spin_and_has_the_threads_that_were_asked_for(graph: Path) -> None:
    options = OnnxRuntime(graph, threads=1)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_foreign_devices_are_refused(graph: Path) -> None:
    with pytest.raises(ValueError, match="'cpu' or 'cuda:N' for ONNX Runtime, got 'gpu'"):
        OnnxRuntime(graph, device="gpu")


ALONE = """
import os, sys
import numpy
from posesdk_runtimes.onnxruntime import OnnxRuntime
from posesdk_runtimes.registry import runtime_devices
before = dict(os.environ)
runtime_devices("onnxruntime")
OnnxRuntime(sys.argv[1]).run({"image": numpy.zeros((1, 8, 8, 3), numpy.uint8)})
assert dict(os.environ) == before
"""


def test_loading_and_running_reports_to_nobody_and_writes_nothing(graph: Path, tmp_path: Path) -> None:
    switches = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")  # would switch it off
    environment = {key: value for key, value in os.environ.items() if key not in switches}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(graph)], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
