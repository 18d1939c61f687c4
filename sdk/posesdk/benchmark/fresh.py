"""A fresh process that loads a detector, takes some frames and says in one line of JSON what that took.

python -m posesdk.benchmark.fresh '{"model": PATH, "settings": {...}, "image": FILE.npy}'
"""

import json
import sys
import time
from pathlib import Path

from posesdk_runtimes.errors import PoseSDKError

__all__ = ["main", "peak_memory"]

MORE_FRAMES = 20
"""After the first one: by then every buffer has been used, and OpenVINO has made a graph for their size."""
STATUS_FILE = Path("/proc/self/status")
PEAK_LINE = "VmHWM:"


def main() -> None:
    """Measures what the one argument says and prints it; a fault of the world is printed as `fault`."""
    wanted = json.loads(sys.argv[1])
    try:
        found: dict[str, object] = _measure(wanted)
    except PoseSDKError as error:
        found = {"fault": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")


def _measure(wanted: dict[str, object]) -> dict[str, object]:
    start = time.perf_counter()
    from posesdk.detector import Detector  # what it loads belongs to the start

    detector = Detector(str(wanted["model"]), **wanted["settings"])  # type: ignore[arg-type]
    ready = time.perf_counter()
    import numpy as np

    image = np.load(str(wanted["image"]))
    begin = time.perf_counter()
    detector(image)
    first = time.perf_counter()
    for _ in range(MORE_FRAMES):
        detector(image)
    return {
        "start_ms": (ready - start) * 1e3,
        "first_ms": (first - begin) * 1e3,
        "peak_mib": peak_memory() / 2**20,
    }


def peak_memory() -> int:
    """The most bytes that this process has had in memory.

    On Linux not by getrusage, which begins with what the starting process had.
    """
    if STATUS_FILE.exists():
        line = next(line for line in STATUS_FILE.read_text().splitlines() if line.startswith(PEAK_LINE))
        return 1024 * int(line.split()[1])
    import psutil

    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


if __name__ == "__main__":
    main()
