"""The machine that a measurement was made on."""

import os
import platform
from typing import Any

from posesdk.gst.bindings import Gst
from processor import processor


def conditions() -> dict[str, Any]:
    """Processor, cores, versions, and the load average of the last minute: how busy the machine is with other work."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gstreamer": ".".join(map(str, Gst.version()[:3])),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def sentence(facts: dict[str, Any]) -> str:
    """The same in a line."""
    return (
        f"{facts['cores']} cores of {facts['processor']}, GStreamer {facts['gstreamer']}, Python {facts['python']}, "
        f"load average before the run {facts['load_average']}"
    )
