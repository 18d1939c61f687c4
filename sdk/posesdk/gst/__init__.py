"""Poses in GStreamer pipelines.

Importing this package needs neither GStreamer nor numpy::

    import posesdk.gst

    posesdk.gst.register()                                  # the elements, for this process
    Gst.parse_launch("videotestsrc ! videoconvert ! logocappose ! fakesink")
"""

from pathlib import Path

from posesdk.gst.availability import find_obstacle
from posesdk.gst.unwinding import prefer_libgcc

__all__ = ["plugin_path", "register", "why_unavailable"]

prefer_libgcc()  # here, so that no module of the package can load GStreamer before


def register() -> None:
    """Makes the elements available to this process; calling it twice is harmless.

    Raises EnvironmentFault where they cannot run here, with the reason and what to do.
    """
    from posesdk_runtimes.errors import EnvironmentFault

    if reason := why_unavailable():
        raise EnvironmentFault(f"cannot use GStreamer from this Python: {reason}")
    from posesdk.gst.bindings import Gst
    from posesdk.gst.factories import FACTORIES

    for name, rank, element in FACTORIES:
        if not Gst.Element.register(None, name, rank, element):
            raise EnvironmentFault(f"GStreamer refused to register the element {name}; run: posesdk doctor")


def plugin_path() -> Path:
    """The folder for GST_PLUGIN_PATH, with which GStreamer's Python plugin loader finds the elements."""
    return Path(__file__).resolve().parent


def why_unavailable() -> str | None:
    """None when the elements can run in this interpreter, else the reason and the remedy."""
    obstacle = find_obstacle()
    return None if obstacle is None else f"{obstacle.reason}; {obstacle.remedy}"
