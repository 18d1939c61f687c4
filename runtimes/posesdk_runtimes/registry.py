"""Which backends there are, which of them are installed, and how one is opened by name."""

import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posesdk_runtimes.base import Runtime
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from posesdk_runtimes.engines.engine import EngineOptions

__all__ = [
    "JETSON_SIGNS",
    "L4T_FILE",
    "RUNTIMES",
    "RuntimeInfo",
    "available_runtimes",
    "device_family",
    "is_jetson",
    "open_runtime",
    "parse_device",
    "runtime_devices",
]


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """One backend: the device families and precisions that it knows, and what of it is on this machine.

    `version` is None where it is not installed, `install` the command that installs it. `devices` are the families that
    can be expected to work, as far as that can be told without loading the library.
    """

    name: str
    families: tuple[str, ...]
    precisions: tuple[str, ...]
    install: str
    version: str | None = None
    devices: tuple[str, ...] = ()


RUNTIMES = {
    info.name: info
    for info in (
        RuntimeInfo("openvino", ("cpu", "gpu", "npu"), ("f32", "f16", "bf16"), "pip install 'posesdk[openvino]'"),
        RuntimeInfo("onnxruntime", ("cpu", "cuda"), ("f32",), "pip install onnxruntime"),
        RuntimeInfo("tflite", ("cpu",), ("f32",), "pip install 'posesdk[tflite]'"),
        RuntimeInfo(
            "tensorrt", ("cuda",), ("f32", "f16"), "pip install tensorrt (Jetson: python3-libnvinfer of JetPack)"
        ),
    )
}
"""What this package can open, the one preferred on a CPU first."""

_MODULES: dict[str, dict[str, tuple[str, ...]]] = {
    "openvino": {"openvino": ("openvino",)},
    "onnxruntime": {"onnxruntime": ("onnxruntime-gpu", "onnxruntime")},
    "tflite": {"ai_edge_litert": ("ai-edge-litert",), "tflite_runtime": ("tflite-runtime",)},
    "tensorrt": {"tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")},
}
"""What each backend is imported as, the preferred one first, and the packages that it may come from."""
L4T_FILE = Path("/etc/nv_tegra_release")
"""What L4T, the Linux of a Jetson, says about itself."""
_JETSON_NODES = ("/dev/nvhost-gpu", "/dev/nvgpu")
_NVIDIA = ("/dev/nvidiactl", *_JETSON_NODES)
"""Device nodes of NVIDIA's drivers for cards and for Jetson."""
JETSON_SIGNS = (L4T_FILE, *map(Path, _JETSON_NODES))
"""Containers see the device nodes, and L4T's file only where it is mounted."""


def available_runtimes() -> tuple[RuntimeInfo, ...]:
    """Every backend with what is installed of it; imports none of them."""
    return tuple(_inspect(info) for info in RUNTIMES.values())


def runtime_devices(name: str) -> tuple[str, ...]:
    """The devices that backend `name` finds here: its library is loaded and asked.

    Raises MissingDependencyError, and DeviceUnavailableError where it has no device at all.
    """
    info = _known(name)
    try:
        if name == "openvino":
            from posesdk_runtimes.openvino import shared_core

            return tuple(device.lower() for device in shared_core().available_devices)
        if name == "tflite":
            from posesdk_runtimes.tflite.runtime import import_interpreter

            import_interpreter()
            return ("cpu",)
        if name == "tensorrt":
            from posesdk_runtimes.tensorrt.cuda import load_cuda
            from posesdk_runtimes.tensorrt.runtime import load_tensorrt

            load_tensorrt()
            return tuple(f"cuda:{index}" for index in range(load_cuda().device_count()))
        from posesdk_runtimes.onnxruntime import import_onnxruntime

        providers = import_onnxruntime().get_available_providers()
    except ImportError as error:
        raise MissingDependencyError(f"{name} cannot be imported ({error}); `{info.install}`") from error
    return ("cpu", "cuda") if "CUDAExecutionProvider" in providers and _has_nvidia() else ("cpu",)


def open_runtime(
    path: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    device: str = "cpu",
    precision: str = "f32",
    threads: int | None = None,
    engine: "EngineOptions | None" = None,
) -> Runtime:
    """The graph at `path` (.onnx, .xml, .tflite, .engine), ready to run on `device` in `precision` (f32, f16, bf16).

    "auto" is decided by file type and device. TensorRT runs an .onnx graph as its engine, which is built and cached as
    `engine` says where there is none yet. Raises ValueError for an unknown name, MissingDependencyError for a
    backend that is not installed, DeviceUnavailableError for a device that cannot be used, EngineBuildError for an
    engine, ArtifactError for the file.
    """
    place = parse_device(device)
    info = _known(runtime if runtime != "auto" else _choose(Path(path), place))
    if place != "auto" and device_family(place) not in info.families:
        raise DeviceUnavailableError(
            f"cannot load {path}: {info.name} knows the devices {', '.join(info.families)}, not {device!r}; "
            "use another device or runtime"
        )
    if precision not in info.precisions:
        raise ValueError(f"expected a precision of {', '.join(info.precisions)} for {info.name}, got {precision!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, got {threads}")
    match info.name:
        case "openvino":
            from posesdk_runtimes.openvino import OpenVINORuntime

            return OpenVINORuntime(path, device=place, precision=precision, threads=threads)
        case "tflite":
            from posesdk_runtimes.tflite.runtime import TFLiteRuntime

            return TFLiteRuntime(path, threads=threads)
        case "tensorrt":
            place = "cuda:0" if place == "auto" else place
            if Path(path).suffix.lower() == ".onnx":
                from posesdk_runtimes.engines.engine import open_as_engine

                return open_as_engine(path, device=place, precision=precision, threads=threads, options=engine)
            from posesdk_runtimes.tensorrt.runtime import TensorRTRuntime

            return TensorRTRuntime(path, device=place, threads=threads)
        case _:
            from posesdk_runtimes.onnxruntime import OnnxRuntime

            return OnnxRuntime(path, device="cpu" if place == "auto" else place, threads=threads)


def parse_device(device: str) -> str:
    """One spelling of a device: "cpu", "cuda:N" (also from "cuda" and "N"), "gpu", "gpu.N", "npu" or "auto"."""
    text = device.strip().lower()
    if re.fullmatch(r"cpu|gpu|gpu\.\d+|npu|auto|cuda:\d+", text):
        return text
    if re.fullmatch(r"\d+", text):
        return f"cuda:{text}"
    if text == "cuda":
        return "cuda:0"
    raise ValueError(f"expected a device 'auto', 'cpu', 'cuda', 'cuda:N', 'N', 'gpu', 'gpu.N' or 'npu', got {device!r}")


def is_jetson() -> bool:
    """Whether this machine is a Jetson."""
    return any(sign.exists() for sign in JETSON_SIGNS)


def device_family(device: str) -> str:
    """ "cuda" of "cuda:0", "gpu" of "gpu.1"; `device` as `parse_device` gives it."""
    return re.split(r"[.:]", device)[0]


def _known(name: str) -> RuntimeInfo:
    if name not in RUNTIMES:
        raise ValueError(f"expected a runtime of {', '.join(('auto', *RUNTIMES))}, got {name!r}")
    return RUNTIMES[name]


def _choose(path: Path, device: str) -> str:
    match path.suffix.lower(), device_family(device):
        case ".xml", _:
            return "openvino"
        case ".tflite", _:
            return "tflite"
        case ".engine", _:
            return "tensorrt"
        case ".onnx", "cuda":
            return "onnxruntime"
        case ".onnx", "gpu" | "npu":
            return "openvino"
        case ".onnx", _:
            return "openvino" if _version("openvino") else "onnxruntime"
    raise ValueError(f"expected a graph that ends in .onnx, .xml, .tflite or .engine, got {str(path)!r}")


def _inspect(info: RuntimeInfo) -> RuntimeInfo:
    version = _version(info.name)
    devices: tuple[str, ...] = ("cpu",) if version and "cpu" in info.families else ()
    if version and _has_nvidia() and (info.name == "tensorrt" or (info.name == "onnxruntime" and _has_cuda_provider())):
        devices = (*devices, "cuda")
    return RuntimeInfo(info.name, info.families, info.precisions, info.install, version, devices)


def _version(name: str) -> str | None:
    for module, distributions in _MODULES[name].items():
        if importlib.util.find_spec(module) is None:
            continue
        for distribution in distributions:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return "unknown"
    return None


def _has_cuda_provider() -> bool:
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    return any(Path(folder, "capi").glob("*onnxruntime_providers_cuda.*") for folder in folders or ())


def _has_nvidia() -> bool:
    return any(Path(node).exists() for node in _NVIDIA)
