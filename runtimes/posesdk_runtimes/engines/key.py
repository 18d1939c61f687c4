"""What an engine depends on: it is used again only where all of it is the same."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posesdk_runtimes.engines.recipe import GraphRecipe
from posesdk_runtimes.registry import L4T_FILE
from posesdk_runtimes.tensorrt.cuda import load_cuda
from posesdk_runtimes.tensorrt.runtime import load_tensorrt

__all__ = ["EngineKey", "Machine", "device_index", "differences", "inspect_machine", "l4t_release", "make_key"]

RULES = 1
"""Raised when the same fields would be built in another way by a newer version of this package."""
FLAGS = ("no-tf32", "profile-sharing")
"""What is set for every engine."""
_CHUNK = 1 << 20
_TITLES = {
    "onnx_sha256": "graph",
    "tensorrt": "TensorRT",
    "cuda_driver": "CUDA driver",
    "gpu": "GPU",
    "l4t": "L4T",
    "flags": "builder flags",
    "rules": "build rules",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of a key that the machine gives; an empty text where there is no such thing."""

    tensorrt: str
    cuda_driver: str = ""
    gpu: str = ""
    compute_capability: str = ""
    l4t: str = ""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Every field is a text, so that differences can be shown."""

    onnx_sha256: str
    precision: str
    typing: str
    shapes: str
    flags: str
    rules: str
    tensorrt: str
    cuda_driver: str
    gpu: str
    compute_capability: str
    l4t: str

    @property
    def digest(self) -> str:
        """Sha256 of all fields: the name of the engine's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def make_key(graph: Path, precision: str, recipe: GraphRecipe | None, machine: Machine) -> EngineKey:
    """The key of a graph's engine on a machine; reads the whole file."""
    profiles = {} if recipe is None else recipe.profiles
    shapes = " ".join(f"{name}={profiles[name]}" for name in sorted(profiles))
    return EngineKey(
        onnx_sha256=_digest(graph),
        precision=precision,
        typing="strong" if recipe is None or recipe.strongly_typed else "weak",
        shapes="default" if recipe is None else shapes,
        flags=" ".join(FLAGS),
        rules=str(RULES),
        **asdict(machine),
    )


def differences(old: Mapping[str, Any], new: EngineKey) -> list[str]:
    """Each field that differs as "TensorRT 10.3.0 -> 10.7.0"; long digests are cut."""
    return [
        f"{_TITLES.get(name, name.replace('_', ' '))} {_short(name, old.get(name))} -> {_short(name, value)}"
        for name, value in asdict(new).items()
        if old.get(name) != value
    ]


def inspect_machine(device: str, module: str = "tensorrt") -> Machine:
    """What of this machine an engine for `device` ("cuda:N") depends on.

    Raises MissingDependencyError where TensorRT is not installed or too old, DeviceUnavailableError for the GPU.
    """
    version = str(load_tensorrt(module).__version__)
    cuda = load_cuda()
    found = cuda.device(device_index(device))
    return Machine(
        tensorrt=version,
        cuda_driver=_dotted(cuda.driver_version),
        gpu=found.name,
        compute_capability=_dotted(found.compute_capability),
        l4t=l4t_release(),
    )


def device_index(device: str) -> int:
    """1 of "cuda:1"."""
    return int(device.partition(":")[2] or 0)


def l4t_release(path: str | os.PathLike[str] = L4T_FILE) -> str:
    """ "36.4.3" on a Jetson with that release of its system, "" elsewhere."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else ""


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _digest(graph: Path) -> str:
    """Sha256 of a graph, with the weights that may lie beside it."""
    digest = hashlib.sha256()
    beside = graph.with_name(graph.name + ".data")
    for path in (graph, beside) if beside.is_file() else (graph,):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _short(name: str, value: Any) -> str:
    text = str(value or "none")
    return text[:8] if name == "onnx_sha256" else text
