"""`posesdk prepare`: what it shows while it builds, and what it says at the end."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from posesdk.bundle import Bundle
from posesdk.prepare import Listener, Prepared, prepare
from posesdk.terminal import show_line, show_text
from posesdk_runtimes.engines.engine import EngineOptions
from posesdk_runtimes.engines.process import BuildProgress

__all__ = ["Settings", "run_prepare"]

MIB = 1 << 20
_EVERY = 10.0
"""Seconds between two lines about a build where there is no terminal for a bar."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the command; None leaves a bound to the bundle or the default."""

    device: str = "cuda:0"
    precision: str = "auto"
    variant: str = "auto"
    workspace_mib: int | None = None
    timeout: float = EngineOptions.timeout
    prune: bool = False
    json: bool = False


def run_prepare(bundle: Bundle, settings: Settings) -> None:
    """Prepares a bundle, with progress on standard error and the result on standard output."""
    options = EngineOptions(workspace_mib=settings.workspace_mib, timeout=settings.timeout)
    with _progress() as listener:
        done = prepare(
            bundle,
            device=settings.device,
            precision=settings.precision,
            variant=settings.variant,
            options=options,
            prune=settings.prune,
            listener=listener,
        )
    if settings.json:
        show_text(json.dumps({"bundle": str(bundle.path), **done.to_dict()}, indent=1) + "\n")
        return
    for line in _lines(bundle, done):
        show_line(line)


def _lines(bundle: Bundle, done: Prepared) -> Iterator[str]:
    used = done.candidate
    yield f"{bundle.manifest.id}: {used.variant.name} ({used.variant.precision}) with {used.runtime} on {used.device}"
    for engine in done.engines:
        how = f"built in {engine.seconds:.1f} s ({engine.reason})" if engine.reason else "already there"
        yield f"  {engine.label}: {how}, {engine.size / MIB:.1f} MiB, {engine.path}"
    for entry in done.removed:
        yield f"  removed {entry.path}, {entry.size / MIB:.1f} MiB"
    if done.first_frame is not None:
        yield f"  golden image: {done.people} people, {done.first_frame:.0f} ms, the backend's start counted in"
    yield f"{'ready' if done.built else 'already prepared, ready'} in {done.seconds:.1f} s"


@contextmanager
def _progress() -> Iterator[Listener]:
    """A bar where standard error is a terminal, else a line now and then."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _written()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def begin(label: str, reason: str) -> None:
            bar.console.print(f"building {label}: {reason}", markup=False, highlight=False)
            tasks[label] = bar.add_task(label, total=None)

        def update(label: str, progress: BuildProgress) -> None:
            total = None if progress.part is None else 1.0
            bar.update(
                tasks[label], description=f"{label}: {progress.phase}", total=total, completed=progress.part or 0.0
            )

        yield Listener(begin, update)


def _written() -> Listener:
    last = [time.monotonic()]

    def begin(label: str, reason: str) -> None:
        last[0] = time.monotonic()
        show_line(f"building {label}: {reason}", err=True)

    def update(label: str, progress: BuildProgress) -> None:
        if time.monotonic() - last[0] < _EVERY:
            return
        last[0] = time.monotonic()
        part = "" if progress.part is None else f", {progress.part:.0%}"
        show_line(f"building {label}: {progress.phase}{part}, {progress.seconds:.0f} s so far", err=True)

    return Listener(begin, update)
