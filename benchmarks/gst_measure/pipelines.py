"""Pipelines that start, end, or say why not."""

from typing import Any

from posesdk.gst.bindings import Gst


def start(pipeline: Any) -> None:
    """PLAYING, with the model loaded. SystemExit with the bus's error."""
    if pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
        wait_for_end(pipeline, 1)
        raise SystemExit("the pipeline does not start")


def wait_for_end(pipeline: Any, within_s: float) -> None:
    """Returns at EOS. SystemExit at an error, or when it takes longer."""
    kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(int(within_s * Gst.SECOND), kinds)
    if message is None:
        raise SystemExit(f"no end after {within_s:.0f} s")
    if message.type == Gst.MessageType.ERROR:
        error, debug = message.parse_error()
        raise SystemExit(f"{error.message}\n{debug}")
