"""Building the TensorRT engines of a bundle ahead of time, and trying them once."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posesdk.bundle import Bundle
from posesdk.engines import engine_options, graph_names
from posesdk.pipeline import open_pipeline
from posesdk.shipped import shipped_name
from posesdk.variants import Candidate, select_variant
from posesdk_runtimes.engines.cache import EngineCache, Entry
from posesdk_runtimes.engines.engine import Engine, EngineOptions, ensure_engine
from posesdk_runtimes.engines.process import BuildProgress
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.registry import available_runtimes, is_jetson
from posesdk_runtimes.tensorrt.runtime import how_to_install

__all__ = ["Listener", "Prepared", "prepare"]

RUNTIME = "tensorrt"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what happens: the label of a graph with why its engine is built, then with the state of the build."""

    on_build: Callable[[str, str], None] = lambda label, reason: None
    on_progress: Callable[[str, BuildProgress], None] = lambda label, progress: None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Engines that are ready; `removed` are outdated ones of the same graphs.

    `seconds` is the whole time, `first_frame` the milliseconds of the golden image and `people` those found in it; both
    None for a bundle without one.
    """

    candidate: Candidate
    engines: tuple[Engine, ...]
    seconds: float
    first_frame: float | None = None
    people: int | None = None
    removed: tuple[Entry, ...] = ()

    @property
    def built(self) -> bool:
        """Whether anything had to be built."""
        return any(engine.reason for engine in self.engines)

    def to_dict(self) -> dict[str, Any]:
        """As `posesdk prepare --json` prints it."""
        used = self.candidate
        return {
            "v": 1,
            "variant": used.variant.name,
            "precision": used.variant.precision,
            "runtime": used.runtime,
            "device": used.device,
            "engines": [_engine_dict(engine) for engine in self.engines],
            "removed": [{"path": str(entry.path), "size": entry.size} for entry in self.removed],
            "first_frame_ms": None if self.first_frame is None else round(self.first_frame, 3),
            "people": self.people,
            "seconds": round(self.seconds, 3),
        }


def prepare(
    bundle: Bundle,
    *,
    device: str = "cuda:0",
    precision: str = "auto",
    variant: str = "auto",
    options: EngineOptions | None = None,
    prune: bool = False,
    listener: Listener | None = None,
) -> Prepared:
    """Builds what the preferred TensorRT variant of a bundle lacks on `device`, opens it and runs its golden image.

    Raises MissingDependencyError without TensorRT, ValueError for a bundle without a variant for it, and the errors of
    `ensure_engine` and `open_pipeline`.
    """
    _require_variant(bundle)
    if not any(info.version for info in available_runtimes() if info.name == RUNTIME):
        raise MissingDependencyError(
            f"cannot prepare bundle {bundle.path}: engines are TensorRT's, which is not installed here; "
            + how_to_install()
        )
    start = time.monotonic()
    candidate = select_variant(bundle.manifest, RUNTIME, device, precision, variant=variant)[0]
    base, told = options or EngineOptions(), listener or Listener()
    engines = tuple(_ensure(bundle, name, candidate, base, told) for name in graph_names(candidate.variant))
    removed = tuple(entry for engine in engines for entry in _prune(engine)) if prune else ()
    milliseconds, people = _try(bundle, candidate)
    return Prepared(candidate, engines, time.monotonic() - start, milliseconds, people, removed)


def _require_variant(bundle: Bundle) -> None:
    if any(RUNTIME in variant.runtime for variant in bundle.manifest.variants):
        return
    source, target = shipped_name(bundle.path) or shlex.quote(str(bundle.path)), "jetson" if is_jetson() else "cuda"
    raise ValueError(
        f"bundle {bundle.path} has no variant for TensorRT; make one, on a PC, with `posesdk-convert {source} --target "
        f"{target} -o {bundle.manifest.id}-{target}.posebundle`"
    )


def _ensure(bundle: Bundle, name: str, candidate: Candidate, base: EngineOptions, told: Listener) -> Engine:
    settings = engine_options(bundle, name, base)
    label = settings.label or name
    settings = replace(settings, on_build=told.on_build, on_progress=lambda progress: told.on_progress(label, progress))
    return ensure_engine(
        bundle.local_path(name),
        device=candidate.device,
        precision=candidate.variant.runtime_precision,
        options=settings,
    )


def _prune(engine: Engine) -> list[Entry]:
    return EngineCache(Path(engine.path).parent).prune(engine.key, engine.label)


def _try(bundle: Bundle, candidate: Candidate) -> tuple[float | None, int | None]:
    """Milliseconds of the golden image and the number of people in it."""
    pipeline = open_pipeline(bundle, candidate)
    try:
        golden = bundle.golden()
        if golden is None:
            return None, None
        estimate = pipeline.run(golden.picture())
    finally:
        pipeline.close()
    found = int(np.count_nonzero(estimate.scores >= pipeline.spec.decode.score_threshold))
    return sum(estimate.timing.values()), found


def _engine_dict(engine: Engine) -> dict[str, Any]:
    return {
        "graph": engine.label,
        "path": str(engine.path),
        "size": engine.size,
        "built": bool(engine.reason),
        "reason": engine.reason or None,
        "seconds": round(engine.seconds, 3),
    }
