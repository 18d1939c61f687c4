"""Tries GStreamer's loader of Python plugins, which plain gst-launch-1.0 needs, without touching the user's registry.

Imports neither gi nor anything outside the standard library: it also tells where gi cannot be imported.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from posesdk.gst import plugin_path

__all__ = ["VARIABLES", "Trial", "cached", "libpython_name", "loader_library", "registry_file", "try_loader"]

VARIABLES = ("GST_PLUGIN_PATH_1_0", "GST_PLUGIN_PATH")
"""GStreamer reads the second one only where the first one is not set."""

LIBRARY = "libgstpython.so"
NEEDED = ("numpy", "cv2", "pydantic", "posesdk_runtimes")
"""What the elements import when they start."""

SYSTEM_FOLDERS = ("/usr/lib/*/gstreamer-1.0", "/usr/lib64/gstreamer-1.0", "/usr/lib/gstreamer-1.0")
LIMIT_S = 10.0
"""A trial takes 0.2 s."""

PROBE = f"""
import importlib.util, json, os, sys
sys.path.append({str(plugin_path().parents[1])!r})
missing = [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]
try:
    import posesdk.gst.factories
    fault = None
except Exception as error:
    fault = f"{{type(error).__name__}}: {{error}}"
found = {{"python": "%d.%d" % sys.version_info[:2], "prefix": sys.prefix, "missing": missing, "fault": fault}}
with open(os.environ["POSESDK_PROBE"], "w") as file:
    json.dump(found, file)
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the loader did in a registry of its own.

    `python` is None where it did not start; `said` is its standard error. `prefix` is where its Python lives, `missing`
    what that one lacks of what the elements import at their start, `fault` why it cannot import them.
    """

    said: str
    python: str | None = None
    prefix: str = ""
    missing: tuple[str, ...] = ()
    fault: str | None = None


def loader_library() -> Path | None:
    """The loader itself, in GStreamer's system folders."""
    folders = os.environ.get("GST_PLUGIN_SYSTEM_PATH_1_0", os.environ.get("GST_PLUGIN_SYSTEM_PATH"))
    if folders is not None:
        places = [Path(folder) for folder in folders.split(os.pathsep)]
    else:
        places = [place for pattern in SYSTEM_FOLDERS for place in Path("/").glob(pattern.lstrip("/"))]
    return next((place / LIBRARY for place in places if (place / LIBRARY).exists()), None)


def libpython_name(library: Path) -> str | None:
    """The Python library that the loader was made for, such as "libpython3.11.so"."""
    found = re.search(rb"libpython3\.\d+\w*\.so", library.read_bytes())
    return None if found is None else found[0].decode()


def registry_file() -> Path:
    """The file in which GStreamer remembers its plugins."""
    for name in ("GST_REGISTRY_1_0", "GST_REGISTRY"):
        if name in os.environ:
            return Path(os.environ[name])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gstreamer-1.0" / f"registry.{os.uname().machine}.bin"


def try_loader(library: Path) -> Trial | None:
    """Lets the loader load a plugin that tells which Python runs it; None where GStreamer's tool does not answer.

    Raises OSError where no temporary file can be written.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "system").mkdir()
        (folder / "system" / LIBRARY).symlink_to(library)
        (folder / "python").mkdir()
        (folder / "python" / "posesdk_probe.py").write_text(PROBE, "utf-8")
        report = folder / "report.json"
        done = _inspect(
            "--exists",
            "none",
            GST_REGISTRY=str(folder / "registry.bin"),
            GST_PLUGIN_SYSTEM_PATH=str(folder / "system"),
            GST_PLUGIN_PATH=name,
            GST_DEBUG="pyplugin:2",
            GST_DEBUG_NO_COLOR="1",
            POSESDK_PROBE=str(report),
        )
        if done is None:
            return None
        if not report.exists():
            return Trial(done.stderr)
        told = json.loads(report.read_text("utf-8"))
        return Trial(done.stderr, told["python"], told["prefix"], tuple(told["missing"]), told["fault"])


def cached(*, element: str) -> str:
    """What GStreamer remembers: "blacklisted" (the loader), "found" or "missing" (the element), or "nothing" yet.

    Asked of a copy, which a look may change. Raises OSError where no temporary file can be written.
    """
    if not registry_file().exists():
        return "nothing"
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "registry.bin"
        shutil.copyfile(registry_file(), copy)
        settings = {"GST_REGISTRY": str(copy), **{name: os.environ[name] for name in VARIABLES if name in os.environ}}
        forbidden = _inspect("-b", **settings, GST_REGISTRY_UPDATE="no")
        if forbidden is not None and LIBRARY in forbidden.stdout:
            return "blacklisted"
        found = _inspect("--exists", element, **settings)
        return "found" if found is not None and found.returncode == 0 else "missing"


def _inspect(*words: str, **settings: str) -> subprocess.CompletedProcess[str] | None:
    inherited = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "GST_REGISTRY_1_0")}
    if "GST_PLUGIN_SYSTEM_PATH" in settings:
        inherited.pop("GST_PLUGIN_SYSTEM_PATH_1_0", None)
    try:
        return subprocess.run(
            ["gst-inspect-1.0", *words],
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
