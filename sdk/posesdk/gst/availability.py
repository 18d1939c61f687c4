"""Whether GStreamer's Python bindings can run the elements in this interpreter, and what to do where not.

Imports neither gi nor anything outside the standard library.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OLDEST", "PACKAGES", "Obstacle", "find_obstacle", "gi_minors"]

OLDEST = (1, 20)
"""The first GStreamer with GstCustomMeta, which carries the poses."""

PACKAGES = {
    "Gst": "gir1.2-gstreamer-1.0",
    "GstBase": "gir1.2-gstreamer-1.0",
    "GstVideo": "gir1.2-gst-plugins-base-1.0",
}
"""Descriptions (typelibs) of the C libraries that the elements use, and the Debian packages that hold them."""

BINDINGS = "python3-gst-1.0 gir1.2-gst-plugins-base-1.0"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the elements cannot run here, and the remedy, as one sentence part each."""

    reason: str
    remedy: str


def find_obstacle() -> Obstacle | None:
    """The first thing that keeps the elements from running in this interpreter; initialises GStreamer."""
    return _no_bindings() or _no_typelib() or _no_overrides() or _too_old()


def gi_minors(folder: Path) -> list[str]:
    """The Pythons, as "3.11", that the compiled part of a `gi` folder was made for."""
    tags = [file.name.split(".")[1] for file in sorted(folder.glob("_gi.cpython-*.so"))]
    digits = [tag.split("-")[1] for tag in tags]
    return [f"{number[0]}.{number[1:]}" for number in digits]


def _no_bindings() -> Obstacle | None:
    spec = importlib.util.find_spec("gi")
    if spec is None or spec.origin is None:
        return Obstacle("Python finds no module gi", _how_to_get_gi())
    try:
        importlib.import_module("gi")
    except ImportError as error:
        made_for, own = gi_minors(Path(spec.origin).parent), _minor()
        if made_for and own not in made_for:
            return Obstacle(
                f"gi was compiled for Python {' and '.join(made_for)}, and this is Python {own} ({error})",
                f"use Python {made_for[0]}: /usr/bin/python3 -m venv --system-site-packages VENV",
            )
        return Obstacle(f"gi cannot be loaded ({error})", f"apt-get install --reinstall python3-gi {BINDINGS}")
    return None


def _no_typelib() -> Obstacle | None:
    import gi

    for name, package in PACKAGES.items():
        try:
            gi.require_version(name, "1.0")
            importlib.import_module(f"gi.repository.{name}")
        except (ImportError, ValueError) as error:
            return Obstacle(f"GStreamer's description of {name} is missing ({error})", f"apt-get install {package}")
    return None


def _no_overrides() -> Obstacle | None:
    """Without gst-python's own part `Buffer.map` copies, and no element can be written in Python."""
    from gi.repository import Gst

    Gst.init(None)
    try:
        importlib.import_module("gi.overrides._gi_gst")  # after Gst: earlier, GLib complains
    except ImportError as error:
        advice = "apt-get install python3-gst-1.0"
        if "site-packages" in str(Path(sys.modules["gi"].__file__ or "")):
            advice += ", and pip uninstall pygobject in this environment: pip's gi comes without this part"
        return Obstacle(f"gi has no overrides for GStreamer ({error})", advice)
    return None


def _too_old() -> Obstacle | None:
    from gi.repository import Gst

    if Gst.version()[:2] >= OLDEST:
        return None
    return Obstacle(
        f"{Gst.version_string()} is older than {OLDEST[0]}.{OLDEST[1]}",
        "use Debian 12, Ubuntu 22.04, JetPack 6 or newer, or `posesdk detect`, which needs no GStreamer",
    )


def _how_to_get_gi() -> str:
    advice = f"apt-get install {BINDINGS}"
    if sys.prefix == sys.base_prefix:
        return advice
    return f"{advice}, then make the environment anew: /usr/bin/python3 -m venv --system-site-packages {sys.prefix}"


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
