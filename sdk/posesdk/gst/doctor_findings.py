"""What `posesdk doctor` says about GStreamer: every way in which an installation of it is known to fail."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from posesdk.doctor import Finding
from posesdk.gst import plugin_path
from posesdk.gst.availability import find_obstacle
from posesdk.gst.plugin_loader import (
    VARIABLES,
    Trial,
    cached,
    libpython_name,
    loader_library,
    registry_file,
    try_loader,
)
from posesdk.gst.plugin_packages import H264_DECODERS, package_of

__all__ = ["examine_gstreamer", "examine_loader"]

ONLY = "only for pipelines"
TEGRA_RELEASE = Path("/etc/nv_tegra_release")
FIRST_TEGRA = 36
"""The L4T release of JetPack 6, the first one whose GStreamer is new enough."""

PURPOSES = {"converting": "videoconvert", "files": "decodebin", "MP4": "qtdemux", "RTSP cameras": "rtspsrc"}
INSTEAD = "`posesdk gst launch` works without"


def examine_gstreamer() -> Iterator[Finding]:
    """Looks at the bindings, the plugins, the tools and the loader of Python plugins."""
    old = _old_jetpack()
    if old is not None:
        yield old
        return
    obstacle = find_obstacle()
    if obstacle is not None:
        yield Finding("GStreamer", "missing", obstacle.reason, f"{ONLY}: {obstacle.remedy}")
    else:
        yield _bindings()
        yield from _plugins()
    if shutil.which("gst-inspect-1.0") is None or shutil.which("gst-launch-1.0") is None:
        advice = f"apt-get install gstreamer1.0-tools; {INSTEAD}"
        yield Finding("GStreamer tools", "missing", "no gst-launch-1.0 and gst-inspect-1.0", f"{ONLY}: {advice}")
        return
    yield examine_loader()


def examine_loader() -> Finding:
    """Whether plain gst-launch-1.0, and every other program with GStreamer, finds the elements."""
    library = loader_library()
    if library is None:
        advice = "apt-get install gstreamer1.0-python3-plugin-loader"
        return _loader("no loader of plugins written in Python (libgstpython.so)", advice)
    try:
        trial, state = try_loader(library), cached(element="logocappose")
    except OSError as error:
        return _loader(f"the loader was not tried: {error}", "make room in the folder for temporary files")
    if trial is None:
        return _loader("gst-inspect-1.0 does not answer", "run gst-inspect-1.0 --version")
    forget = f"rm {registry_file()}"
    if trial.python is None or trial.missing or trial.fault:
        detail, remedy = _why_not(trial, library)
        return _loader(detail, f"{remedy}, then {forget}" if state == "blacklisted" else remedy)
    if state == "blacklisted":
        detail = "libgstpython.so failed once and is blacklisted since, though it works now"
        return _loader(detail, forget)
    if not _is_named():
        detail = 'finds the elements after: eval "$(posesdk gst env)"'
        return Finding("gst-launch-1.0", "ok", detail)
    if state == "missing":
        detail = "GStreamer remembers that the elements could not be loaded once, though they can be now"
        return _loader(detail, forget)
    return Finding("gst-launch-1.0", "ok", f"finds the elements, and runs them with Python {trial.python}")


def _loader(detail: str, advice: str) -> Finding:
    return Finding("gst-launch-1.0", "missing", detail, f"{advice}; {INSTEAD}")


def _why_not(trial: Trial, library: Path) -> tuple[str, str]:
    """What keeps the loader from running the elements, and the remedy."""
    if trial.python is None:
        return _why_not_started(trial, libpython_name(library) or "libpython3.so")
    if trial.missing:
        lacking = ", ".join(trial.missing)
        detail = f"the loader runs Python {trial.python} of {trial.prefix}, which has no {lacking}"
        return detail, _how_to_give_it_packages(trial)
    return f"the elements cannot be imported by the loader: {trial.fault}", "install posesdk anew"


def _why_not_started(trial: Trial, wanted: str) -> tuple[str, str]:
    made_for = re.sub(r"libpython(3\.\d+).*", r"\1", wanted)
    where, version = _first_python()
    if version is not None and version != made_for:
        detail = f"the loader is made for Python {made_for}, and the first python3 on PATH is {version} ({where})"
        return detail, "deactivate that environment, or put /usr/bin first on PATH"
    if re.search(r"libpython|undefined symbol: _?Py", trial.said) or not _has_library(wanted):
        detail = f"the loader does not find {wanted}, which the development package alone has"
        return detail, f"apt-get install libpython3-dev, or export LD_PRELOAD={wanted}.1.0"
    detail = f"the loader does not start: {trial.said.strip() or 'it does not say why'}"
    return detail, "look at GST_DEBUG=pyplugin:5 gst-inspect-1.0 python"


def _how_to_give_it_packages(trial: Trial) -> str:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.prefix != sys.base_prefix and own == trial.python:
        return f"activate this environment: . {sys.prefix}/bin/activate"
    return "install posesdk for that Python: /usr/bin/python3 -m venv --system-site-packages VENV"


def _first_python() -> tuple[str, str | None]:
    """Path and version of the python3 that the loader takes its folders from."""
    where = shutil.which("python3")
    if where is None:
        return "none", None
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([where, "-c", tell], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return where, None
    return where, done.stdout.strip() or None


def _has_library(name: str) -> bool:
    folders = (*Path("/usr/lib").glob("*-linux-gnu*"), Path("/usr/lib64"), Path("/usr/lib"), Path("/usr/local/lib"))
    return any((folder / name).exists() for folder in folders)


def _is_named() -> bool:
    value = next((os.environ[name] for name in VARIABLES if name in os.environ), "")
    return str(plugin_path()) in value.split(os.pathsep)


def _old_jetpack() -> Finding | None:
    try:
        release = re.match(r"# R(\d+)", TEGRA_RELEASE.read_text("utf-8", "replace"))
    except OSError:
        return None
    if release is None or int(release[1]) >= FIRST_TEGRA:
        return None
    detail = f"L4T R{release[1]} (JetPack 5 or older) has GStreamer 1.16, and the elements need 1.20"
    return Finding("GStreamer", "missing", detail, f"{ONLY}: install JetPack 6; `posesdk detect` works without")


def _bindings() -> Finding:
    import gi
    from gi.repository import Gst

    version = ".".join(map(str, Gst.version()[:3]))
    return Finding("GStreamer", "ok", f"{version}, with PyGObject {gi.__version__}: posesdk gst launch")


def _plugins() -> Iterator[Finding]:
    """What pipelines with poses are made of; decoders are many, and one of them is enough."""
    from gi.repository import Gst

    missing = {purpose: name for purpose, name in PURPOSES.items() if Gst.ElementFactory.find(name) is None}
    if missing:
        packages = sorted({package_of(name) or name for name in missing.values()})
        lacking = ", ".join(f"{name} for {purpose}" for purpose, name in missing.items())
        yield Finding("GStreamer plugins", "missing", f"no {lacking}", f"{ONLY}: apt-get install {' '.join(packages)}")
    decoders = [name for name in H264_DECODERS if Gst.ElementFactory.find(name) is not None]
    if not decoders:
        advice = "apt-get install gstreamer1.0-libav, or gstreamer1.0-plugins-bad (openh264dec)"
        yield Finding("GStreamer plugins", "missing", "no decoder for H.264", f"{ONLY}: {advice}")
    elif not missing:
        yield Finding("GStreamer plugins", "ok", f"{', '.join(PURPOSES)}, H.264 by {', '.join(decoders)}")
    yield from _analytics(Gst.version()[:2])


def _analytics(version: tuple[int, int]) -> Iterator[Finding]:
    from posesdk.gst.analytics import ARRIVED, why_unavailable

    reason = why_unavailable() if version >= ARRIVED else None
    if reason is not None:
        detail, _, remedy = reason.partition("; ")
        advice = remedy or "apt-get install gir1.2-gst-plugins-bad-1.0"
        yield Finding("GstAnalytics", "missing", detail, f"only for attach=analytics: {advice}")
