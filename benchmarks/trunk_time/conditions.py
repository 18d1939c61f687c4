"""The machine and the libraries that a measurement was made with."""

import importlib.metadata
import os
import platform

from processor import processor

__all__ = ["conditions"]

LIBRARIES = ("openvino", "onnxruntime", "numpy")


def conditions() -> str:
    """Processor, cores, versions and load of the last minute, in a sentence."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {processor()}; {versions}, Python {platform.python_version()}; "
        f"load average before the run {os.getloadavg()[0]:.1f}."
    )
