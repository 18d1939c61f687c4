"""The element `logocapoverlay`: draws the poses that buffers carry, anywhere downstream of `logocappose`.

At import it needs nothing but `gi`: GStreamer's plugin scanner imports it, and remembers a failure for good.
"""

from collections.abc import Mapping
from typing import Any

from posesdk.gst.bindings import GLib, GObject, Gst, GstBase
from posesdk.gst.faults import guarded, importing
from posesdk.gst.unwinding import exceptions_kept
from posesdk.gst.video_pads import frame_info, video_pads

__all__ = ["LogocapOverlay"]

_ANYTIME = GObject.ParamFlags.READWRITE | Gst.PARAM_MUTABLE_PLAYING
_EXPIRE = 200_000_000

PROPERTIES: Mapping[str, tuple[Any, ...]] = {
    "keypoint-threshold": (
        GObject.TYPE_DOUBLE,
        "Keypoint threshold",
        "Lowest score of a keypoint that is drawn; -1: that of the poses",
        -1.0,
        1.0,
        -1.0,
        _ANYTIME,
    ),
    "boxes": (bool, "Boxes", "Draw each person's box", False, _ANYTIME),
    "scores": (bool, "Scores", "Write each person's score, and track id, beside it", False, _ANYTIME),
    "expire-overlay": (
        GObject.TYPE_UINT64,
        "Expire overlay",
        "Nanoseconds of stream time for which poses are drawn on frames after theirs that carry none; the largest "
        "value: for ever",
        0,
        GLib.MAXUINT64,
        _EXPIRE,
        _ANYTIME,
    ),
}


class LogocapOverlay(GstBase.BaseTransform):
    """Skeletons drawn in place, scaled to the frame; a frame without poses to draw passes untouched and uncopied."""

    __gtype_name__ = "GstLogocapOverlay"
    __gstmetadata__ = (
        "LOGO-CAP pose overlay",
        "Filter/Editor/Video",
        "Draws the people that logocappose found upstream",
        "The posesdk authors",
    )
    __gsttemplates__ = video_pads()
    __gproperties__ = dict(PROPERTIES)  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.set_in_place(True)
        self.set_passthrough(True)
        self._values = {name: row[-2] for name, row in PROPERTIES.items()}
        self._painter: Any = None
        self._chosen: Any = None

    def value(self, name: str) -> Any:
        """A property's value."""
        return self._values[name]

    def do_get_property(self, spec: Any) -> Any:
        """A property's value."""
        return self._values[spec.name]

    def do_set_property(self, spec: Any, value: Any) -> None:
        """Keeps a value, for the next frame."""
        self._values[spec.name] = value

    @guarded(False)
    def do_start(self) -> bool:
        """Loads what draws."""
        with importing(self), exceptions_kept():
            from posesdk.gst.painter import Painter
        self._painter = Painter(self)
        return True

    @guarded(False)
    def do_stop(self) -> bool:
        """Forgets all."""
        self._painter = None
        return True

    @guarded(False)
    def do_set_caps(self, incaps: Any, outcaps: Any) -> bool:
        """Frames have another format from now on; poses fit any, as they are in parts of a frame."""
        self._painter.set_format(frame_info(incaps))
        return True

    @guarded(False)
    def do_sink_event(self, event: Any) -> bool:
        """Forgets the poses at a flush."""
        if event.type == Gst.EventType.FLUSH_STOP and self._painter is not None:
            self._painter.forget()
        return bool(GstBase.BaseTransform.do_sink_event(self, event))

    @guarded(None)
    def do_before_transform(self, buffer: Any) -> None:
        """Looks for poses before the base class copies a frame that somebody else holds, too."""
        self._chosen = None  # what stays if this fails
        self._chosen = self._painter.choose(buffer)
        self.set_passthrough(not len(self._chosen))

    @guarded(Gst.FlowReturn.ERROR)
    def do_transform_ip(self, buffer: Any) -> Any:
        """Draws on a frame."""
        chosen, self._chosen = self._chosen, None
        if chosen is None:  # the error is on the bus
            return Gst.FlowReturn.ERROR
        if len(chosen):
            self._painter.draw(buffer, chosen)
        return Gst.FlowReturn.OK
