"""What of the SDK works on this machine, and what to do about the rest."""

import importlib.metadata
import importlib.util
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posesdk._version import __version__
from posesdk_runtimes.errors import EnvironmentFault, PoseSDKError

__all__ = ["Finding", "examine"]

State = Literal["ok", "missing", "broken"]
"""`missing`: optional, the rest works; `broken`: the core does not."""

OLDEST_PYTHON = (3, 10)
CORE = {"numpy": "numpy", "cv2": "opencv-python-headless", "pydantic": "pydantic", "typer": "typer", "rich": "rich"}
"""Import names and the packages that pip installs them with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do, and is empty where all is well."""

    name: str
    state: State
    detail: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Looks at one thing after the other; loads the backends, so that their devices can be named."""
    yield _python()
    yield Finding("posesdk", "ok", __version__)
    core = [_package(name, package) for name, package in CORE.items()]
    yield from core
    if any(finding.state == "broken" for finding in core):
        return
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (_opencv, _runtimes, _model, _cache, _gstreamer)
    for look in looks:
        yield from look()


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.release()}, {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("Python", "broken", detail, "install Python 3.10 or newer")
    return Finding("Python", "ok", detail)


def _package(name: str, package: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name, "broken", "not installed", f"pip install {package}")
    try:
        return Finding(name, "ok", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:  # OpenCV has four packages, and a distribution may bring its own
        return Finding(name, "ok", "installed, version unknown to pip")


def _opencv() -> Iterator[Finding]:
    import cv2

    registry = cv2.videoio_registry
    backends = [registry.getBackendName(entry) for entry in registry.getStreamBackends() if registry.hasBackend(entry)]
    if {"FFMPEG", "GSTREAMER"} & set(backends):
        yield Finding("video files", "ok", f"OpenCV {cv2.__version__} with {', '.join(backends)}")
    else:
        advice = "install an OpenCV with FFmpeg or GStreamer: pip install opencv-python-headless"
        yield Finding("video files", "missing", f"OpenCV {cv2.__version__} with {', '.join(backends)}", advice)
    cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
    if cameras:
        yield Finding("cameras", "ok", ", ".join(cameras))
    else:
        yield Finding("cameras", "missing", "no /dev/video*", "connect a camera, if you need one")


def _runtimes() -> Iterator[Finding]:
    from posesdk_runtimes.registry import available_runtimes, runtime_devices
    from posesdk_runtimes.tensorrt.runtime import how_to_install

    usable = 0
    for info in available_runtimes():
        if info.version is None:
            advice = how_to_install() if info.name == "tensorrt" else info.install
            yield Finding(info.name, "missing", "not installed", advice)
            continue
        try:
            devices = ", ".join(runtime_devices(info.name))
        except EnvironmentFault as error:
            detail, _, advice = str(error).partition("; ")
            yield Finding(info.name, "missing", detail, advice.strip("`") or info.install)
            continue
        except PoseSDKError as error:
            yield Finding(info.name, "missing", str(error), info.install)
            continue
        usable += 1
        yield Finding(info.name, "ok", f"{info.version}, devices: {devices}")
    if not usable:
        yield Finding("inference", "broken", "no runtime can be used", "pip install onnxruntime")


def _model() -> Iterator[Finding]:
    from posesdk.bundle import default_bundle_path, open_bundle
    from posesdk.shipped import describe_shipped

    try:
        manifest = open_bundle(default_bundle_path()).manifest
    except PoseSDKError as error:
        detail = str(error).partition("; ")[0]
        yield Finding("default model", "missing", detail, "name a model with --model, or install the posesdk wheel")
        return
    yield Finding("default model", "ok", f"{manifest.id} {manifest.version}")
    yield Finding("shipped models", "ok", describe_shipped())


def _cache() -> Iterator[Finding]:
    from posesdk.bundle_cache import CACHE_VARIABLE, cache_folder

    folder = cache_folder()
    if folder.is_relative_to(tempfile.gettempdir()):
        advice = f"set {CACHE_VARIABLE} to a folder that you can write"
        yield Finding("cache folder", "missing", f"{folder}, lost at a restart", advice)
    else:
        yield Finding("cache folder", "ok", str(folder))


def _gstreamer() -> Iterator[Finding]:
    from posesdk.gst.doctor_findings import examine_gstreamer

    yield from examine_gstreamer()
