"""The element `logocapposejson`: the poses that buffers carry, as JSON lines beside the stream.

At import it needs nothing but `gi`: GStreamer's plugin scanner imports it, and remembers a failure for good.
"""

from typing import Any

from posesdk.gst.bindings import Gst
from posesdk.gst.faults import guarded, importing
from posesdk.gst.unwinding import exceptions_kept

__all__ = ["LogocapPoseJson"]

JSON_CAPS = "application/x-json"


class LogocapPoseJson(Gst.Element):
    """One line of JSON, with its end, per buffer that carries poses; a GAP event per buffer that carries none.

    Lines have the time stamps of their buffers, which may hold anything: raw frames, or what an encoder made of them.
    The text is that of `logocappose`'s signal and messages.
    """

    __gtype_name__ = "GstLogocapPoseJson"
    __gstmetadata__ = (
        "LOGO-CAP poses as JSON lines",
        "Filter/Converter/Metadata",
        "Writes the poses that buffers carry as lines of JSON",
        "The posesdk authors",
    )
    __gsttemplates__ = tuple(
        Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, caps)
        for name, direction, caps in (
            ("sink", Gst.PadDirection.SINK, Gst.Caps.new_any()),
            ("src", Gst.PadDirection.SRC, Gst.Caps.from_string(JSON_CAPS)),
        )
    )

    def __init__(self) -> None:
        super().__init__()
        sink, src = (Gst.Pad.new_from_template(template, template.name_template) for template in self.__gsttemplates__)
        # Functions that are given the element: with methods, the pads would keep it alive, and it them.
        sink.set_chain_function_full(_chain)
        sink.set_event_function_full(_sink_event)
        for pad in (sink, src):
            self.add_pad(pad)
        self._read: Any = None

    @guarded(Gst.StateChangeReturn.FAILURE)
    def do_change_state(self, transition: Any) -> Any:
        """Loads what reads the poses on the way to READY."""
        if transition == Gst.StateChange.NULL_TO_READY:
            with importing(self), exceptions_kept():
                from posesdk.gst.meta import record_from_buffer
            self._read = record_from_buffer
        return Gst.Element.do_change_state(self, transition)

    @guarded(Gst.FlowReturn.ERROR)
    def take(self, buffer: Any) -> Any:
        """Sends a buffer's poses on; with its time where there are none, so that sinks need not wait for a line."""
        record, src = self._read(buffer), self.get_static_pad("src")
        if record is not None:
            line = Gst.Buffer.new_wrapped(f"{record.to_json()}\n".encode())
            line.pts, line.duration = buffer.pts, buffer.duration
            return src.push(line)
        if buffer.pts != Gst.CLOCK_TIME_NONE:
            src.push_event(Gst.Event.new_gap(buffer.pts, buffer.duration))
        return Gst.FlowReturn.OK

    @guarded(False)
    def take_event(self, pad: Any, event: Any) -> bool:
        """Sends an event on; the caps of the buffers become those of the lines."""
        if event.type == Gst.EventType.CAPS:
            return self._send_caps()
        if event.type == Gst.EventType.SEGMENT:  # of a stream without caps, too
            self._send_caps()
        return pad.event_default(self, event)  # type: ignore[no-any-return]

    def _send_caps(self) -> bool:
        src = self.get_static_pad("src")
        return src.has_current_caps() or src.push_event(Gst.Event.new_caps(Gst.Caps.from_string(JSON_CAPS)))  # type: ignore[no-any-return]


def _chain(_pad: Any, element: Any, buffer: Any) -> Any:
    return element.take(buffer)


def _sink_event(pad: Any, element: Any, event: Any) -> Any:
    return element.take_event(pad, event)
