"""What a pipeline's ERROR and WARNING messages mean for the one who started it from a shell."""

import re
from typing import Any

from posesdk.gst.bindings import Gst
from posesdk.gst.plugin_packages import advice_for
from posesdk.terminal import FAILURE, USAGE, show_line, show_text
from posesdk_runtimes import errors

__all__ = ["exit_code", "report", "report_plugin_missing"]

OURS = "logocap"
"""How the names of this package's elements begin."""

UNREADABLE = (
    Gst.ResourceError.NOT_FOUND,
    Gst.ResourceError.OPEN_READ,
    Gst.ResourceError.OPEN_READ_WRITE,  # a camera in the network that does not answer
    Gst.ResourceError.READ,
)


def exit_code(message: Any) -> int:
    """The command line's exit code for an ERROR message."""
    error, debug = message.parse_error()
    if not _is_ours(message.src):
        unreadable = any(error.matches(code.quark(), code) for code in UNREADABLE)
        return errors.SourceError.exit_code if unreadable and _is_source(message.src) else FAILURE
    if error.matches(Gst.LibraryError.quark(), Gst.LibraryError.SETTINGS):
        return USAGE
    if error.matches(Gst.ResourceError.quark(), Gst.ResourceError.NOT_FOUND):
        return errors.ArtifactError.exit_code
    raised = re.findall(r"^posesdk_runtimes\.errors\.(\w+)", debug or "", re.MULTILINE)
    if raised:
        return int(getattr(errors, raised[-1]).exit_code)
    initial = error.matches(Gst.LibraryError.quark(), Gst.LibraryError.INIT)
    return errors.EnvironmentFault.exit_code if initial else FAILURE


def report(message: Any, *, verbose: bool) -> None:
    """Writes an ERROR, WARNING or INFO message to standard error.

    The debug text is left out where the first line says all: faults that this package's elements expect.
    """
    kinds = {Gst.MessageType.ERROR: "error", Gst.MessageType.WARNING: "warning", Gst.MessageType.INFO: "info"}
    kind = kinds[message.type]
    error, debug = getattr(message, f"parse_{kind}")()
    origin = message.src.get_path_string() if message.src else "the pipeline"
    show_line(f"posesdk: {kind}: {origin}: {error.message}{advice_for(error.message)}", err=True)
    expected = kind == "error" and _is_ours(message.src) and exit_code(message) != FAILURE
    if debug and (verbose or not expected):
        show_text(f"{debug.rstrip()}\n", err=True)


def report_plugin_missing(structure: Any) -> None:
    """Writes what decodebin and its like could not find."""
    wanted = structure.get_string("name") or structure.to_string()
    show_line(f"posesdk: warning: no plugin for {wanted}{advice_for(wanted)}", err=True)


def _is_ours(origin: Any) -> bool:
    return isinstance(origin, Gst.Element) and _factory(origin).startswith(OURS)


def _factory(element: Any) -> str:
    factory = element.get_factory()
    return str(factory.get_name()) if factory else ""


def _is_source(origin: Any) -> bool:
    return isinstance(origin, Gst.Element) and not origin.sinkpads
