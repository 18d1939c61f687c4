"""The pads of the elements that take and give video frames, and what their caps say.

Imports nothing but GStreamer's bindings: GStreamer's plugin scanner imports the elements, and with them this file.
"""

from typing import Any

from posesdk.gst.bindings import Gst, GstVideo
from posesdk.gst.faults import ElementFault
from posesdk.gst.layout import FORMATS

__all__ = ["CAPS", "frame_info", "video_pads"]

CAPS = f"video/x-raw, format={{{','.join(FORMATS)}}}, width=[16,8192], height=[16,8192], framerate=[0/1,2147483647/1]"
"""Frames that the elements take: in system memory."""


def video_pads() -> tuple[Any, ...]:
    """Templates of a sink pad and a source pad for `CAPS`."""
    return tuple(
        Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(CAPS))
        for name, direction in (("sink", Gst.PadDirection.SINK), ("src", Gst.PadDirection.SRC))
    )


def frame_info(caps: Any) -> Any:
    """The GstVideo.VideoInfo of fixed caps. Raises ElementFault."""
    info = GstVideo.VideoInfo.new_from_caps(caps)
    if info is None:
        raise ElementFault(Gst.StreamError.WRONG_TYPE, f"no description of video frames: {caps.to_string()}")
    return info
