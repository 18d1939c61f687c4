"""ONNX Runtime alone: a device is used or refused, never replaced."""

from pathlib import Path

import numpy as np
import pytest

from posesdk_runtimes.errors import DeviceUnavailableError
from posesdk_runtimes.onnxruntime import OnnxRuntime

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
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
