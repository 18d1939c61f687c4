"""Start-up, first frame and memory of an entry, each time in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import posesdk
import posesdk_runtimes
from posesdk.benchmark.entries import Entry

__all__ = ["Fresh", "measure_fresh"]

RUNS = 3
LIMIT = 300.0
"""Seconds after which a process that says nothing is given up; an engine may have to be built in it."""
CHILD = "posesdk.benchmark.fresh"


@dataclass(frozen=True, slots=True)
class Fresh:
    """ms of importing the SDK and making a detector, of its first frame, and the most MiB resident; or the `fault`."""

    start_ms: float | None = None
    first_ms: float | None = None
    peak_mib: float | None = None
    fault: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure_fresh(
    entries: Sequence[Entry], image: NDArray[np.uint8], found: dict[int, Fresh], on_process: Callable[[int], None]
) -> None:
    """Three processes an entry, in turns, with `image` as their frame; fills `found` by the entries' numbers.

    Times are medians, memory the largest. An entry whose process fails has its fault, and no further process.
    """
    runs: dict[int, list[Fresh]] = {index: [] for index in range(len(entries))}
    with tempfile.TemporaryDirectory(prefix="posesdk-benchmark-") as folder:
        file = Path(folder) / "frame.npy"
        np.save(file, image)
        for turn in range(RUNS):
            for index, entry in enumerate(entries):
                if not (index in found and found[index].fault):
                    runs[index].append(_run(entry, file))
                    found[index] = _summary(runs[index])
                on_process(turn * len(entries) + index + 1)


def _run(entry: Entry, image: Path) -> Fresh:
    wanted = {"model": str(entry.bundle.path), "settings": entry.settings(), "image": str(image)}
    command = [sys.executable, "-m", CHILD, json.dumps(wanted)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT, env=_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return Fresh(fault=f"its process took more than {LIMIT:g} s and was ended")
    try:
        return Fresh(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Fresh(fault=f"its process ended with code {done.returncode} and said: {said}")


def _environment() -> dict[str, str]:
    """This process's, with the packages of this process before any others."""
    roots = [str(Path(str(package.__file__)).parents[1]) for package in (posesdk, posesdk_runtimes)]
    return os.environ | {"PYTHONPATH": os.pathsep.join([*roots, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def _summary(runs: Sequence[Fresh]) -> Fresh:
    if runs[-1].fault is not None:
        return runs[-1]
    start, first = (
        float(np.median([value for run in runs if (value := getattr(run, name)) is not None]))
        for name in ("start_ms", "first_ms")
    )
    return Fresh(start, first, max(run.peak_mib for run in runs if run.peak_mib is not None))
