"""Whether a build can be expected to fit into memory, and how much scratch memory it may take."""

import logging
import re
from pathlib import Path

from posesdk_runtimes.engines.process import MEMORY_HINT
from posesdk_runtimes.errors import EngineBuildError
from posesdk_runtimes.tensorrt.cuda import load_cuda

__all__ = ["FreeMemory", "check_memory", "free_memory", "workspace_within"]

MIB = 1 << 20
BASE_MIB, PER_BYTE = 768, 6
"""What a build may take: the library's kernels, and copies of the weights. An estimate, not a measurement."""
LEAST_MIB, LEAST_PER_BYTE = 256, 2
"""Below this there is no point in trying."""
SMALLEST_WORKSPACE_MIB = 64

_log = logging.getLogger(__name__)

FreeMemory = tuple[int, int]
"""MiB of the host (swap counted in) and of the GPU; the same memory on a Jetson."""


def free_memory(index: int, root: Path = Path("/")) -> FreeMemory:
    """What is free for GPU `index` and the host now; `root` is where /proc and /sys are."""
    host = _host_mib(root)
    cuda = load_cuda()
    if cuda.device(index).integrated:
        return host, host
    with cuda.on(index):
        return host, cuda.memory()[0] // MIB


def check_memory(graph: Path, free: FreeMemory) -> None:
    """Warns where the estimate is above what is free. Raises EngineBuildError where the build has no chance."""
    size = graph.stat().st_size
    expected, least = BASE_MIB + PER_BYTE * size // MIB, LEAST_MIB + LEAST_PER_BYTE * size // MIB
    available = min(free)
    if available < least:
        raise EngineBuildError(
            f"cannot build the engine of {graph}: {available} MiB of memory are free, and it takes at least {least}; "
            f"{MEMORY_HINT}",
            "memory",
        )
    if available < expected:
        _log.warning(
            "building the engine of %s may take about %d MiB of memory, and %d MiB are free; if it fails: %s",
            graph,
            expected,
            available,
            MEMORY_HINT,
        )


def workspace_within(wanted_mib: int, graph: Path, free: FreeMemory) -> int:
    """`wanted_mib`, or less where that much is not free beside the rest of the build."""
    rest = min(free) - (BASE_MIB + PER_BYTE * graph.stat().st_size // MIB)
    return max(min(wanted_mib, rest), min(wanted_mib, SMALLEST_WORKSPACE_MIB))


def _host_mib(root: Path) -> int:
    text = (root / "proc/meminfo").read_text(encoding="ascii")
    fields: dict[str, str] = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    free = (int(fields["MemAvailable"]) + int(fields.get("SwapFree", "0"))) // 1024
    limit = _container_mib(root / "sys/fs/cgroup")
    return free if limit is None else min(free, limit)


def _container_mib(folder: Path) -> int | None:
    """What a container may still take (cgroup v2), None without a limit."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return (int(limit) - int(used)) // MIB if limit.isdecimal() else None
