"""What lets gst-launch-1.0 and other programs find the elements: `posesdk gst env`."""

import os
import shlex
from collections.abc import Iterator

from posesdk.gst import plugin_path

__all__ = ["VARIABLES", "assignment", "hints"]

VARIABLES = ("GST_PLUGIN_PATH_1_0", "GST_PLUGIN_PATH")
"""GStreamer reads the second one only where the first one is not set."""


def assignment() -> str:
    """One line for a shell: the variable that GStreamer reads, with what it named before."""
    name = next((name for name in VARIABLES if name in os.environ), VARIABLES[-1])
    named = [part for part in os.environ.get(name, "").split(os.pathsep) if part]
    own = str(plugin_path())
    value = os.pathsep.join(named if own in named else [own, *named])
    return f"export {name}={shlex.quote(value)}"


def hints() -> Iterator[str]:
    """What else is needed, a sentence each."""
    yield from ()
