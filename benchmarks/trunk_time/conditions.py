"""The machine and the libraries that a measurement was made with."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

__all__ = ["conditions"]

LIBRARIES = ("openvino", "onnxruntime", "numpy")
INSTRUCTIONS = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp")


def conditions() -> str:
    """Processor, cores, versions and load of the last minute, in a sentence."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}; {versions}, Python {platform.python_version()}; "
        f"load average before the run {os.getloadavg()[0]:.1f}."
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    found = [flag for flag in INSTRUCTIONS if re.search(rf"\b{flag}\b", text)]
    return f"{name[1] if name else platform.machine()} with {', '.join(found) or 'no instructions for int8'}"
