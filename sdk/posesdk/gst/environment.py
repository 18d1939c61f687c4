"""What lets gst-launch-1.0 and other programs find the elements: `posesdk gst env`."""

import os
import shlex
from collections.abc import Iterator

from posesdk.gst import plugin_path
from posesdk.gst.plugin_loader import VARIABLES

__all__ = ["assignment", "hints"]


def assignment() -> str:
    """One line for a shell: the variable that GStreamer reads, with what it named before."""
    name = next((name for name in VARIABLES if name in os.environ), VARIABLES[-1])
    named = [part for part in os.environ.get(name, "").split(os.pathsep) if part]
    own = str(plugin_path())
    value = os.pathsep.join(named if own in named else [own, *named])
    return f"export {name}={shlex.quote(value)}"


def hints() -> Iterator[str]:
    """What else is needed before gst-launch-1.0 can run the elements."""
    from posesdk.gst.doctor_findings import examine_loader

    finding = examine_loader()
    if finding.state != "ok":
        yield from (finding.detail, finding.advice)
