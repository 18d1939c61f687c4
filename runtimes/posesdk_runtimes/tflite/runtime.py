"""LiteRT, once TensorFlow Lite: .tflite graphs on the CPU, with XNNPACK."""

import importlib
import importlib.metadata
import os
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np

from posesdk_runtimes.base import Tensor, TensorSpec
from posesdk_runtimes.errors import ArtifactError, MissingDependencyError, RuntimeFault
from posesdk_runtimes.feeds import check_feeds
from posesdk_runtimes.tflite.session import FAULTS, Ports, Session, freed_ports, read_port

__all__ = ["TFLiteRuntime", "import_interpreter"]

_MODULES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Packages that hold the interpreter and the names that pip knows them by, the preferred one first."""
_OLDEST = {"ai-edge-litert": (2, 0), "tflite-runtime": (2, 14)}
_INSTALL = "pip install 'posesdk[tflite]'"
_SESSIONS = 4
"""Most threads that run one graph at a time, each with an interpreter of its own; more threads wait."""
_MOST_THREADS = 4
"""Of one graph, where nobody asks for a number: the fast cores of a phone or a board."""
_MAGIC = b"TFL3"


def import_interpreter() -> Any:
    """The class `Interpreter` of ai-edge-litert, else of tflite-runtime; the module that it comes from has its name.

    Raises ImportError where neither can be imported, or what can be is too old.
    """
    reasons = []
    for module, package in _MODULES.items():
        fault = _version_fault(package)
        if fault is None:
            try:
                return importlib.import_module(f"{module}.interpreter").Interpreter
            except ImportError as error:
                fault = str(error)
        reasons.append(fault)
    raise ImportError("; ".join(reasons))


def _version_fault(package: str) -> str | None:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # not there, or from a device image without pip's records
        return None
    oldest = _OLDEST[package]
    if _release(version) < oldest:
        return f"{package} {version} is too old, {oldest[0]}.{oldest[1]} or newer is needed"
    if package == "tflite-runtime" and _release(np.__version__) >= (2, 0):  # it loads, and fails when it is used
        return f"{package} {version} needs numpy below 2, and numpy {np.__version__} is installed"
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


class TFLiteRuntime:
    """One .tflite file on the CPU. `precision` is "f32": a graph runs in the element types that it is stored with.

    A tensor that the file holds as int8 or int16 with a scale is float32 here, and is converted on the way in and out;
    a uint8 input is a picture and stays one. A file that was converted for one person takes any number of them where
    its layers allow it. `threads` of None is one for each core that this process may use, up to 4, with ai-edge-litert,
    and one with tflite-runtime.
    """

    precision = "f32"

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None) -> None:
        if device != "cpu":
            raise ValueError(f"expected the device 'cpu' for LiteRT, got {device!r}")
        self.device = device
        self._path = Path(path)
        try:
            self._make: Any = import_interpreter()
        except ImportError as error:
            raise MissingDependencyError(
                f"cannot load {path}: no LiteRT interpreter can be imported ({error}); install it with `{_INSTALL}`, "
                "or use the tflite-runtime of your device with numpy below 2"
            ) from error
        self._threads = threads or _usual_threads(self._make)
        self._check_file()
        session = self._open()
        fixed = self._read_ports(session)
        free = freed_ports(session, fixed)
        self._ports = free or fixed
        self._closed = False
        self._sessions: LifoQueue[Session | None] = LifoQueue()
        for _ in range(_SESSIONS - 1):
            self._sessions.put(None)
        self._sessions.put(session if free else None)  # tflite-runtime ends the process when it goes on after a failure

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        return tuple(port.spec for port in self._ports[0])

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        return tuple(port.spec for port in self._ports[1])

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name."""
        tensors = list(check_feeds(self.inputs, feeds).values())
        nobody = bool(tensors) and all(len(tensor) == 0 for tensor in tensors if tensor.ndim)
        if nobody:  # the interpreter cannot compute nothing
            tensors = [np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in tensors]
        values = self._run(tensors)
        if nobody:
            values = [value[:0] for value in values]
        return dict(zip((spec.name for spec in self.outputs), values, strict=True))

    def close(self) -> None:
        """Frees the graph as soon as no thread runs it any more."""
        self._closed = True
        idle = 0
        with suppress(Empty):
            while True:
                self._sessions.get_nowait()
                idle += 1
        for _ in range(idle):  # threads that wait for a slot wake up and find the graph closed
            self._sessions.put(None)

    def _run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        session = self._sessions.get()
        try:
            if self._closed:
                raise RuntimeFault(f"cannot run {self._path}: it has been closed; open it again")
            if any(tensor.size == 0 for tensor in tensors):
                raise RuntimeFault(f"cannot run {self._path} on tensors without elements; feed at least one")
            session = session or self._open()
            return session.run(tensors, self._ports)
        except FAULTS as error:
            session = None
            raise RuntimeFault(f"LiteRT failed to run {self._path}: {_one_line(error)}") from error
        finally:
            self._sessions.put(None if self._closed else session)

    def _check_file(self) -> None:
        """Raises ArtifactError for what is no .tflite at all: tflite-runtime ends the process on some of it.

        ai-edge-litert checks the whole file by itself.
        """
        if not self._path.is_file():
            raise ArtifactError(f"cannot load {self._path}: there is no such file; check the path")
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"cannot read {self._path}: {error.strerror}; check its permissions") from error
        if content[4:8] != _MAGIC or not _has_root(content):
            raise self._broken("it is no TensorFlow Lite file, or damaged")

    def _open(self) -> Session:
        try:
            return Session(self._make(model_path=str(self._path), num_threads=self._threads))
        except FAULTS as error:
            raise self._broken(_one_line(error)) from error

    def _read_ports(self, session: Session) -> Ports:
        inputs, outputs = session.details()
        if not inputs or not outputs:
            raise self._broken("it has no inputs or no outputs")
        names = session.names()
        if names and not {detail["index"] for detail in (*inputs, *outputs)} <= set(names):
            raise self._broken("its signature is not that of its main graph")
        for detail in (*inputs, *outputs):
            if np.dtype(detail["dtype"]).kind not in "biuf":
                raise self._broken(f"{detail['name']!r} is not a tensor of numbers")
        return (
            tuple(read_port(detail, names, pictures=True) for detail in inputs),
            tuple(read_port(detail, names, pictures=False) for detail in outputs),
        )

    def _broken(self, reason: str) -> ArtifactError:
        version = self._make.__module__.partition(".")[0]
        return ArtifactError(f"{version} cannot load {self._path}: {reason}; get or convert the model again")


def _has_root(content: bytes) -> bool:
    """Whether a flatbuffer's first table, and the list of its fields, lie inside of it."""
    try:
        (root,) = struct.unpack_from("<I", content)
        (back,) = struct.unpack_from("<i", content, root)
        (length,) = struct.unpack_from("<H", content, max(root - back, 0))
    except struct.error:
        return False
    return bool(4 <= length <= len(content) - (root - back) and root >= back)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _usual_threads(interpreter: Any) -> int:
    """tflite-runtime's threads wait in a loop for each other: 25 times slower with two where another program runs."""
    if interpreter.__module__.startswith("tflite_runtime"):
        return 1
    return min(_usable_cores(), _MOST_THREADS)


def _usable_cores() -> int:
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
