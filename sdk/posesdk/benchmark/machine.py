"""The conditions of a measurement: what else may explain its figures."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from posesdk._version import __version__
from posesdk_runtimes.registry import available_runtimes

__all__ = ["Load", "affinity", "describe_machine", "pin", "spans"]

PROCESSOR_FILE = Path("/proc/cpuinfo")
GOVERNOR_FILE = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
BUSY = 0.1
"""Part of the processors that other programs may take before a figure is not to be trusted."""
GLANCE = 0.5
"""Seconds of looking at the machine before the work begins."""


def pin(cpus: Sequence[int]) -> None:
    """Keeps this process, and those that it starts, on these processors; before any backend has made its threads.

    Raises ValueError for one that is not there, or where the system has no such thing.
    """
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        raise ValueError(f"{platform.system()} does not let a process choose its processors; leave --cpus out")
    try:
        process.cpu_affinity(list(cpus))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"expected processors among {spans(affinity() or ())} for --cpus, got {spans(cpus)}"
        ) from error


def affinity() -> tuple[int, ...] | None:
    """The processors that this process may use; None where the system does not say."""
    process = psutil.Process()
    return tuple(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else None


def spans(cpus: Sequence[int]) -> str:
    """0-3,8 for (0, 1, 2, 3, 8)."""
    found: list[list[int]] = []
    for cpu in sorted(cpus):
        if found and cpu == found[-1][-1] + 1:
            found[-1].append(cpu)
        else:
            found.append([cpu])
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in found)


def describe_machine(runtimes: Sequence[str]) -> dict[str, Any]:
    """Processor, cores, governor, system and versions, for people and for JSON; None for what cannot be read."""
    import cv2
    import numpy as np

    backends = {info.name: info.version for info in available_runtimes() if info.name in runtimes}
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "processor": _processor(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "affinity": affinity(),
        "megahertz": frequency.current if frequency else None,
        "governor": _line(GOVERNOR_FILE),
        "memory_mib": round(psutil.virtual_memory().total / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "posesdk": __version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "runtimes": backends,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    try:
        lines = PROCESSOR_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "model\t")))
    return next((name for name in named if name and not name.isdecimal()), platform.processor() or platform.machine())


def _line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class _Moment:
    seconds: float
    busy: float
    own: float


class Load:
    """What other programs do to the machine, from the moment of its making on.

    `average` is that of the last minute when it was made, None where the system has none; `others` the part of the
    processors that other programs took just then.
    """

    def __init__(self) -> None:
        self.average = _average()
        start = _now()
        time.sleep(GLANCE)
        self._start = _now()
        self.others = _others(start, self._start)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the same figures for now, and for the time since."""
        return {
            "load_average_before": self.average,
            "load_average_after": _average(),
            "others_before": self.others,
            "others_during": _others(self._start, _now()),
            "disturbed": self.is_disturbed,
        }

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs took more than a tenth of the processors, before or since."""
        return max(self.others, _others(self._start, _now())) > BUSY


def _average() -> float | None:
    return psutil.getloadavg()[0] if hasattr(psutil, "getloadavg") else None


def _now() -> _Moment:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    own = psutil.Process().cpu_times()
    children = getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
    total = (
        sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    )  # guests are in `user` as well
    return _Moment(time.perf_counter(), total - idle, own.user + own.system + children)


def _others(start: _Moment, end: _Moment) -> float:
    """Part of all processors, 0 to 1."""
    available = (end.seconds - start.seconds) * (psutil.cpu_count() or 1)
    taken = (end.busy - start.busy) - (end.own - start.own)
    return min(max(taken / available, 0.0), 1.0) if available > 0 else 0.0
