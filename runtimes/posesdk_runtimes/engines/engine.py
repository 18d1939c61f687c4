"""The TensorRT engine of an ONNX graph for the GPU at hand: from the cache, or built into it."""

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posesdk_runtimes.engines.cache import EngineCache, Entry, default_cache_folder
from posesdk_runtimes.engines.job import Job
from posesdk_runtimes.engines.key import EngineKey, Machine, device_index, inspect_machine, make_key
from posesdk_runtimes.engines.memory import FreeMemory, check_memory, free_memory, workspace_within
from posesdk_runtimes.engines.process import MEMORY_HINT, BuildProgress, OnProgress, build_command, run_build
from posesdk_runtimes.engines.recipe import WORKSPACE_MIB, GraphRecipe, read_recipe
from posesdk_runtimes.errors import ArtifactError, EngineBuildError
from posesdk_runtimes.tensorrt.runtime import TensorRTRuntime

__all__ = ["Engine", "EngineOptions", "ensure_engine", "open_as_engine"]

TIMEOUT = 3600.0
"""Seconds; large graphs take tens of minutes on small boards."""

_log = logging.getLogger(__name__)


_NEWS = 30.0
"""Seconds between two lines about a build in the log."""


class _News:
    """Writes the state of a build into the log now and then, for those who did not ask to be told."""

    def __init__(self) -> None:
        self._next = _NEWS

    def __call__(self, progress: BuildProgress) -> None:
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + _NEWS
        part = "" if progress.part is None else f", {progress.part:.0%}"
        _log.warning("%s%s, %.0f s so far", progress.phase, part, progress.seconds)


def _warn(label: str, reason: str) -> None:
    _log.warning(
        "building the TensorRT engine of %s (%s): this takes minutes once; `posesdk prepare` does it ahead of time",
        label,
        reason,
    )


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built; what is None is found out.

    `cache` is the folder of engines; `recipe` that of the graph, else the `engine.json` beside it; `label` names the
    graph for people; `workspace_mib` and `timeout` (seconds) bound a build. `on_build` is told the label of a graph and
    why its engine has to be built. `machine`, `free`, `module` and `command` stand in for the machine's own.
    """

    cache: Path | None = None
    recipe: GraphRecipe | None = None
    label: str | None = None
    workspace_mib: int | None = None
    timeout: float = TIMEOUT
    on_progress: OnProgress = field(default_factory=_News)
    on_build: Callable[[str, str], None] = _warn
    machine: Machine | None = None
    free: FreeMemory | None = None
    module: str = "tensorrt"
    command: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready to be loaded; `reason` says why it was built, "" where it came from the cache."""

    path: Path
    key: EngineKey
    label: str
    size: int
    seconds: float = 0.0
    reason: str = ""


def ensure_engine(
    graph: str | os.PathLike[str],
    *,
    device: str = "cuda:0",
    precision: str = "f32",
    options: EngineOptions | None = None,
) -> Engine:
    """The engine of the ONNX file `graph` for `device` ("cuda:N"); `precision` is "f32" or "f16".

    Of several processes that want one, one builds and the others wait. Raises MissingDependencyError without TensorRT,
    DeviceUnavailableError without the GPU, EngineBuildError, and ArtifactError for the file.
    """
    path, settings = Path(graph), options or EngineOptions()
    if not path.is_file():
        raise ArtifactError(f"cannot build an engine of {path}: there is no such file; check the path")
    recipe = settings.recipe or read_recipe(path)
    machine = settings.machine or inspect_machine(device, settings.module)
    wanted = _Wanted(
        graph=path,
        label=settings.label or f"{path.parent.name}/{path.name}",
        device=device,
        precision=precision,
        recipe=recipe,
        key=make_key(path, precision, recipe, machine),
    )
    cache = EngineCache(settings.cache or default_cache_folder())
    if entry := cache.find(wanted.key):
        return Engine(entry.path, wanted.key, wanted.label, entry.size)
    try:
        return _build_once(wanted, cache, settings)
    except OSError as error:
        what = f"cannot build the engine of {wanted.label} in {cache.folder}: {error.strerror or error}"
        if error.errno == errno.ENOMEM:  # there is not even enough to start the process
            raise EngineBuildError(f"{what}; {MEMORY_HINT}", "memory") from error
        raise EngineBuildError(f"{what}; free space, or set POSESDK_CACHE to another folder", "write") from error


def open_as_engine(
    graph: str | os.PathLike[str],
    *,
    device: str,
    precision: str = "f32",
    threads: int | None = None,
    options: EngineOptions | None = None,
) -> TensorRTRuntime:
    """The graph, ready to run as its engine; a cached one that TensorRT refuses is built again, once."""
    settings = options or EngineOptions()
    engine = ensure_engine(graph, device=device, precision=precision, options=settings)
    try:
        return TensorRTRuntime(engine.path, device=device, threads=threads)
    except ArtifactError as error:
        if engine.reason:  # it has just been built
            raise
        _log.warning("building the engine of %s again: %s", engine.label, error)
        engine.path.with_suffix(".json").unlink(missing_ok=True)
    engine = ensure_engine(graph, device=device, precision=precision, options=settings)
    return TensorRTRuntime(engine.path, device=device, threads=threads)


@dataclass(frozen=True, slots=True)
class _Wanted:
    graph: Path
    label: str
    device: str
    precision: str
    recipe: GraphRecipe | None
    key: EngineKey


def _build_once(wanted: _Wanted, cache: EngineCache, settings: EngineOptions) -> Engine:
    reason = cache.explain_miss(wanted.key, wanted.label)
    settings.on_build(wanted.label, reason)
    start = time.monotonic()
    deadline = start + settings.timeout
    with cache.building(deadline, _Waiting(settings.on_progress, wanted.label)):
        if entry := cache.find(wanted.key):  # another process has built it meanwhile
            return Engine(entry.path, wanted.key, wanted.label, entry.size)
        entry = _build(wanted, cache, settings, deadline)
    seconds = time.monotonic() - start
    _log.info("built %s in %.1f s", entry.path, seconds)
    return Engine(entry.path, wanted.key, wanted.label, entry.size, seconds, reason)


def _build(wanted: _Wanted, cache: EngineCache, settings: EngineOptions, deadline: float) -> Entry:
    free = settings.free or free_memory(device_index(wanted.device))
    check_memory(wanted.graph, free)
    usual = WORKSPACE_MIB if wanted.recipe is None else wanted.recipe.workspace_mib
    workspace = workspace_within(settings.workspace_mib or usual, wanted.graph, free)
    part = cache.part()
    try:
        job = Job(str(wanted.graph), str(part), wanted.precision, wanted.recipe, workspace, settings.module)
        done = run_build(
            job,
            command=settings.command or build_command(),
            environment=_environment(wanted.device),
            timeout=max(deadline - time.monotonic(), 0.0),
            on_progress=settings.on_progress,
        )
        notes = {"label": wanted.label, "size": done["size"], "sha256": done["sha256"], "workspace_mib": workspace}
        return cache.store(wanted.key, part, notes)
    finally:
        part.unlink(missing_ok=True)


def _environment(device: str) -> Mapping[str, str]:
    """That of this process, with the wanted GPU as the only one that is seen."""
    index, seen = device_index(device), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",") if seen else []
    return {**os.environ, "CUDA_VISIBLE_DEVICES": names[index].strip() if index < len(names) else str(index)}


class _Waiting:
    """Tells whom a build waits for: the log once, the progress again and again."""

    def __init__(self, on_progress: OnProgress, label: str) -> None:
        self._on_progress, self._label, self._start = on_progress, label, time.monotonic()
        self._told = False

    def __call__(self, holder: int | None) -> None:
        who = "another process" if holder is None else f"process {holder}"
        if not self._told:
            _log.warning("%s is building an engine; waiting for it before %s is built", who, self._label)
            self._told = True
        self._on_progress(BuildProgress(f"waiting for {who}", None, time.monotonic() - self._start))
