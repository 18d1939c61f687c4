"""The binding of the CUDA runtime: its signatures, its errors, and the real library where there is one."""

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

import fake_tensorrt as fakes
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError, PoseSDKError, RuntimeFault
from posesdk_runtimes.tensorrt import cuda as cuda_module
from posesdk_runtimes.tensorrt.cuda import SIGNATURES, Cuda, CudaDevice, cuda_libraries, host_bytes, load_cuda

HEADERS = [Path(folder, "cuda_runtime_api.h") for folder in ("/usr/local/cuda/include", "/usr/include")]


def opened(**plan: Any) -> tuple[Any, Cuda]:
    library = fakes.Cudart(**plan)
    return library, Cuda(library, "libcudart.so.12")


def test_signatures_are_those_of_the_documentation() -> None:
    documented = fakes.prototypes(fakes.PROTOTYPES)
    assert documented.keys() - SIGNATURES.keys() == {"cudaGetErrorString", "cudaGetLastError"}
    assert {name: documented[name] for name in SIGNATURES} == SIGNATURES


def test_signatures_are_those_of_the_installed_header() -> None:
    header = next((path for path in HEADERS if path.is_file()), None)
    if header is None:
        pytest.skip("the CUDA toolkit is not installed")
    text = header.read_text(errors="replace")
    declared = re.findall(r"cudaError_t CUDARTAPI (cuda\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
    found = {name: fakes.argument_types(inner) for name, inner in declared if name in SIGNATURES}
    assert found == SIGNATURES


def test_versions_devices_and_memory_are_told() -> None:
    _, cuda = opened(version=11080, devices=2)
    assert cuda.version == cuda.driver_version == (11, 8)
    assert cuda.device_count() == 2
    assert cuda.device(1) == CudaDevice(1, "Fake GPU 1", (8, 7), integrated=True)
    assert cuda.memory() == (3 << 30, 8 << 30)


def test_bytes_go_to_the_device_and_back_when_they_are_waited_for() -> None:
    library, cuda = opened()
    stream, event = cuda.create_stream(), cuda.create_event()
    source, device, target = cuda.allocate_host(5), cuda.allocate(5), cuda.allocate_host(5)
    host_bytes(source, 5)[:] = [1, 2, 3, 4, 5]
    cuda.copy_to_device(device, source, 5, stream)
    cuda.copy_to_host(target, device, 5, stream)
    cuda.record(event, stream)
    cuda.wait(event)
    assert host_bytes(target, 5).tolist() == [1, 2, 3, 4, 5]
    cuda.free_host(source)
    cuda.free_host(target)
    cuda.free(device)
    cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    assert library.live() == {}


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (2, RuntimeFault, r"cannot allocate 7 bytes on the GPU: out of memory \(CUDA error 2\); close other programs"),
        (35, DeviceUnavailableError, "update the NVIDIA driver"),
        (100, DeviceUnavailableError, "no NVIDIA GPU is visible"),
        (700, RuntimeFault, "start the program again"),
        (1, RuntimeFault, r"some error \(CUDA error 1\)"),
    ],
)
def test_errors_say_what_was_being_done_and_what_to_do(code: int, kind: type[PoseSDKError], message: str) -> None:
    library, cuda = opened()
    library.faults = {"cudaMalloc": code}
    with pytest.raises(kind, match=message):
        cuda.allocate(7)


def test_the_first_library_that_the_driver_can_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {"new": fakes.Cudart(13000), "old": fakes.Cudart(12060)}
    libraries["new"].faults = {"cudaGetDeviceCount": 35}

    def load(path: str) -> Any:
        if path not in libraries:
            raise OSError("no such file")
        return libraries[path]

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(cuda_module, "cuda_libraries", lambda: ("none", "new", "old"))
    cuda_module._load.cache_clear()
    assert load_cuda().version == (12, 6)
    libraries["old"].faults = {"cudaGetDeviceCount": 100}
    cuda_module._load.cache_clear()
    with pytest.raises(DeviceUnavailableError, match="35"):  # the newest is asked for its reason
        load_cuda().device_count()
    monkeypatch.setattr(cuda_module, "cuda_libraries", lambda: ("none",))
    with pytest.raises(MissingDependencyError, match=r"no libcudart here.*nvidia-jetpack"):
        load_cuda()
    cuda_module._load.cache_clear()


def test_libraries_of_wheels_are_looked_at_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheels = [tmp_path / "nvidia/cu13/lib/libcudart.so.13", tmp_path / "nvidia/cuda_runtime/lib/libcudart.so.12"]
    for wheel in wheels:
        wheel.parent.mkdir(parents=True)
        wheel.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cuda_libraries()[:3] == (*map(str, wheels), "libcudart.so.13")


def test_the_real_library_answers_or_says_what_is_missing() -> None:
    try:
        cuda = load_cuda()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert cuda.version >= (11, 0)
    try:
        count = cuda.device_count()
    except DeviceUnavailableError as error:
        assert "CUDA error" in str(error)  # noqa: PT017
        with pytest.raises(DeviceUnavailableError, match="cannot allocate"):
            cuda.allocate(1)
    else:
        assert cuda.device(count - 1).compute_capability >= (5, 0)
