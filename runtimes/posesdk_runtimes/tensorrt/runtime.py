"""TensorRT: engines that `posesdk prepare` built on this machine, on NVIDIA GPUs and on Jetson."""

import importlib
import logging
import os
import re
import sys
import weakref
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from posesdk_runtimes.base import Tensor, TensorSpec
from posesdk_runtimes.errors import ArtifactError, MissingDependencyError, PoseSDKError, RuntimeFault
from posesdk_runtimes.feeds import check_feeds
from posesdk_runtimes.registry import is_jetson
from posesdk_runtimes.tensorrt.cuda import Cuda, load_cuda
from posesdk_runtimes.tensorrt.lane import GraphSwitch, Lane
from posesdk_runtimes.tensorrt.pool import LanePool

__all__ = [
    "OLDEST",
    "TensorRTRuntime",
    "how_to_install",
    "lacks_memory",
    "load_tensorrt",
    "tensorrt_log",
    "tensorrt_version",
]

_log = logging.getLogger(__name__)

OLDEST = (8, 6)
"""The oldest TensorRT that is supported."""
_LANES = 4
"""Callers that may be on the GPU at once; more only wait for each other there, and each has its own memory."""
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
"""numpy's types of `tensorrt.DataType`; the others, as BF16 and FP8, have none."""
_MEMORY = (
    "outofmemory",
    "out of memory",
    "insufficient memory",
    "not enough memory",
    "cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "memoryerror",
)
"""How CUDA, TensorRT, C++, the loader and Python say that there is no memory left, in lower case."""


def load_tensorrt(name: str = "tensorrt") -> Any:
    """The module of that name. Raises MissingDependencyError where it cannot be imported or is too old."""
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: libnvinfer is loaded by ctypes
        raise MissingDependencyError(f"TensorRT cannot be imported ({error}); {how_to_install()}") from error
    version = tensorrt_version(module)
    if name == "tensorrt" and version < OLDEST:
        raise MissingDependencyError(
            f"TensorRT {module.__version__} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed; "
            + ("install JetPack 6 or newer" if is_jetson() else "pip install --upgrade tensorrt")
        )
    return module


def tensorrt_version(module: Any) -> tuple[int, ...]:
    """(10, 3, 0) of "10.3.0"."""
    return tuple(int(part) for part in re.findall(r"\d+", str(module.__version__)))


def lacks_memory(text: str) -> bool:
    """Whether a message is about a lack of memory."""
    return any(word in text.lower() for word in _MEMORY)


def how_to_install() -> str:
    """What brings the module `tensorrt` to this Python."""
    system = next((folder for folder in map(Path, _system_folders()) if (folder / "tensorrt").is_dir()), None)
    if system is not None and str(system) not in sys.path:
        return (
            f"it is in {system}, where this Python does not look: make the environment anew with "
            "`/usr/bin/python3 -m venv --system-site-packages`"
        )
    if is_jetson():
        return (
            "on a Jetson it comes with JetPack: `sudo apt-get install python3-libnvinfer`, in an environment made by "
            "`/usr/bin/python3 -m venv --system-site-packages`"
        )
    return "install it with `pip install tensorrt`"


def _system_folders() -> list[str]:
    """Where Debian's and JetPack's packages of Python modules go."""
    return ["/usr/lib/python3/dist-packages", *sorted(glob("/usr/lib/python3.*/dist-packages"))]


class TensorRTRuntime:
    """One .engine file on `device` "cuda:N".

    `threads` changes nothing: the work is the GPU's. Up to four calls of `run` are on it at once. With `use_graphs`,
    shapes that come again and again are replayed as a CUDA graph. `module` and `cuda` stand in for `load_tensorrt()`
    and `load_cuda()`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "cuda:0",
        threads: int | None = None,
        use_graphs: bool = False,
        module: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        self.device = device
        self._path = Path(path)
        self._index = _index(device)
        try:
            module = module or load_tensorrt()
            cuda = self._cuda = cuda or load_cuda()
            self._gpu = cuda.device(self._index)
        except PoseSDKError as error:
            raise type(error)(f"cannot load {self._path} on {device}: {error}") from error
        with cuda.on(self._index):
            engine = self._read(module)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        read = module.TensorIOMode.INPUT
        self._inputs = tuple(self._spec(module, engine, name) for name in names if modes[name] == read)
        self._outputs = tuple(self._spec(module, engine, name) for name in names if modes[name] != read)
        self._limits = {spec.name: _limits(engine, spec) for spec in self._inputs if None in spec.shape}
        self._lanes = _pool(module, cuda, engine, GraphSwitch(use_graphs, self._path), self._path)
        end = weakref.finalize(self, _close, self._lanes, cuda, self._index)
        end.atexit = False  # the driver frees all of it then, and may be gone before
        self._end = end

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs, in its order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The engine's outputs, in its order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name; ValueError also for a shape outside of what the engine was prepared for.

        A longer batch than that is run in parts, where one input and all outputs have a free first dimension: what
        stands for itself in each row, as images and persons do in a bundle's graphs, gives the same so.
        """
        tensors = check_feeds(self._inputs, feeds)
        parts = self._parts(tensors)
        if not self._end.alive:
            raise RuntimeFault(f"cannot run {self._path}: it has been closed; open it again")
        try:
            with self._cuda.on(self._index):
                results = [self._run(part) for part in parts]
        except PoseSDKError as error:
            raise type(error)(f"TensorRT failed to run {self._path} on {self.device}: {error}") from error
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def close(self) -> None:
        """Frees the engine as soon as no thread runs it any more."""
        self._end()

    def _run(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        shapes = tuple(tensor.shape for tensor in tensors.values())
        return self._lanes.use(shapes, lambda lane: lane.run(tensors, self._outputs))

    def _parts(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        if len(tensors) == 1 and all(spec.shape[:1] == (None,) for spec in (*self._inputs, *self._outputs)):
            ((name, tensor),) = tensors.items()
            most = self._limits[name][1][0]
            parts = [{name: tensor[row : row + most]} for row in range(0, len(tensor), most)] or [tensors]
        else:
            parts = [tensors]
        for part in parts:
            self._check_sizes(part)
        return parts

    def _check_sizes(self, tensors: dict[str, Tensor]) -> None:
        for name, (smallest, largest) in self._limits.items():
            shape = tensors[name].shape
            if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
                raise ValueError(
                    f"input {name!r}: expected a shape from {list(smallest)} to {list(largest)}, for which "
                    f"{self._path} was prepared, got {list(shape)}"
                )

    def _read(self, module: Any) -> Any:
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"cannot load {self._path}: {error.strerror}; run `posesdk prepare` again") from error
        log = tensorrt_log(module)
        log.messages.clear()
        engine = module.Runtime(log).deserialize_cuda_engine(data)
        if engine is None:
            major, minor = self._gpu.compute_capability
            reason = _explain(log)
            what = (
                f"TensorRT {module.__version__} cannot load {self._path} on {self._gpu.name} (compute capability "
                f"{major}.{minor}): {reason}"
            )
            if lacks_memory(reason):  # the engine itself is well
                raise RuntimeFault(f"{what}; close other programs that use the GPU, or use a smaller model")
            raise ArtifactError(
                f"{what}; an engine fits one version and one kind of GPU, run `posesdk prepare` on this machine again"
            )
        return engine

    def _spec(self, module: Any, engine: Any, name: str) -> TensorSpec:
        kind = engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise ArtifactError(f"cannot load {self._path}: {name!r} is of type {kind}, which numpy does not have")
        if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise ArtifactError(f"cannot load {self._path}: {name!r} is a shape, not an array; convert the model again")
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        return TensorSpec(name, shape, np.dtype(_DTYPES[kind]))


@lru_cache(maxsize=4)
def tensorrt_log(module: Any) -> Any:
    """The one `ILogger` of a process, with the errors since the last failure in `messages`.

    TensorRT keeps the first logger that it is given, and ignores all others.
    """
    severity = module.ILogger.Severity
    levels = {severity.WARNING: logging.INFO, severity.INFO: logging.DEBUG}
    worst = (severity.INTERNAL_ERROR, severity.ERROR)
    messages: deque[str] = deque(maxlen=8)

    def log(_self: Any, level: Any, text: str) -> None:
        if level in worst:  # arrives as an exception
            messages.append(text.strip())
            _log.debug("TensorRT: %s", text)
        elif level in levels:
            _log.log(levels[level], "TensorRT: %s", text)

    kind = type("Log", (module.ILogger,), {"log": log, "messages": messages})
    return kind()


def _explain(log: Any) -> str:
    messages = list(log.messages)
    log.messages.clear()
    return " ".join(messages).replace("\n", " ") or "it does not say why"


def _index(device: str) -> int:
    found = re.fullmatch(r"cuda:(\d+)", device)
    if not found:
        raise ValueError(f"expected a device 'cuda:N' for TensorRT, got {device!r}")
    return int(found[1])


def _limits(engine: Any, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    smallest, _, largest = engine.get_tensor_profile_shape(spec.name, 0)
    return tuple(smallest), tuple(largest)


def _pool(module: Any, cuda: Cuda, engine: Any, graphs: GraphSwitch, path: Path) -> LanePool:
    log = tensorrt_log(module)

    def make() -> Lane:
        context = engine.create_execution_context()
        if context is None:
            raise RuntimeFault(f"no memory for one more caller: {_explain(log)}")
        return Lane(module, cuda, context, lambda: _explain(log), graphs)

    return LanePool(make, _LANES, path)


def _close(lanes: LanePool, cuda: Cuda, index: int) -> None:
    try:
        with cuda.on(index):
            lanes.close()
    except PoseSDKError as error:
        _log.debug("closing on cuda:%d: %s", index, error)
