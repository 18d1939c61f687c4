"""Keeps one line of GStreamer off the user's screen that says nothing to him."""

from functools import cache
from typing import Any

from posesdk.gst.bindings import GLib, Gst

__all__ = ["mute_floating_complaint"]

QUIET_SINCE = (1, 26)
"""GStreamer of the distributions whose PyGObject hands elements over as GStreamer expects."""
COMPLAINT = "created element should be floating"


@cache
def mute_floating_complaint() -> None:
    """Leaves out the CRITICAL that older bindings cause at the creation of every element written in Python.

    GStreamer puts right what it complains of, and nothing leaks. Every other message of GStreamer's goes its usual way.
    """
    if Gst.version()[:2] < QUIET_SINCE:
        GLib.log_set_handler("GStreamer", GLib.LogLevelFlags.LEVEL_CRITICAL, _show_others, None)


def _show_others(domain: str, level: Any, text: str, _: Any) -> None:
    if COMPLAINT not in text:
        GLib.log_default_handler(domain, level, text, None)
