"""The element `logocappose`: finds the people in every frame of a pipeline.

At import it needs nothing but `gi`: GStreamer's plugin scanner imports it, and remembers a failure for good.
"""

from typing import Any

from posesdk.gst.bindings import GObject, Gst, GstBase
from posesdk.gst.faults import SettingsFault, guarded, importing, post_warning
from posesdk.gst.settings import PROPERTIES, READY_ONLY
from posesdk.gst.unwinding import exceptions_kept
from posesdk.gst.video_pads import frame_info, video_pads

__all__ = ["LogocapPose"]


class LogocapPose(GstBase.BaseTransform):
    """Multi-person pose estimation in place: poses as metadata, drawn, as a signal or as messages."""

    __gtype_name__ = "GstLogocapPose"
    __gstmetadata__ = (
        "LOGO-CAP pose estimation",
        "Filter/Analyzer/Video",
        "Finds people and their keypoints in video frames",
        "The posesdk authors",
    )
    __gsttemplates__ = video_pads()
    __gproperties__ = dict(PROPERTIES)  # noqa: RUF012
    __gsignals__ = {"poses": (GObject.SignalFlags.RUN_LAST, None, (GObject.TYPE_UINT64, str))}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.set_in_place(True)
        self.set_passthrough(False)
        self._values = {name: row[-2] for name, row in PROPERTIES.items()}
        self._stream: Any = None
        self._last_stats = "{}"

    def value(self, name: str) -> Any:
        """A property's value."""
        return self._values[name]

    def publish(self, record: Any) -> None:
        """Hands a `PoseRecord` to those who asked for it: the signal's listeners, and the bus."""
        listened = GObject.signal_has_handler_pending(self, GObject.signal_lookup("poses", LogocapPose), 0, True)
        if not listened and not self._values["messages"]:
            return
        text = record.to_json()
        if self._values["messages"]:
            structure = Gst.Structure.new_empty("logocappose")
            structure.set_value("json", text)
            self.post_message(Gst.Message.new_element(self, structure))
        if listened:
            self.emit("poses", Gst.CLOCK_TIME_NONE if record.pts_ns is None else record.pts_ns, text)

    def do_get_property(self, spec: Any) -> Any:
        """A property's value; `stats` of the last run after it has ended."""
        if spec.name != "stats":
            return self._values[spec.name]
        stream = self._stream
        return self._last_stats if stream is None else stream.stats_json()

    def do_set_property(self, spec: Any, value: Any) -> None:
        """Keeps a value; one that may not change while the element runs is refused with a warning on the bus."""
        if self._stream is not None and spec.name in READY_ONLY:
            if value != self._values[spec.name]:
                text = f"{spec.name}: cannot change while the element runs; set it in state NULL or READY"
                post_warning(self, SettingsFault(f"{text} (it stays {self._values[spec.name]!r}, not {value!r})"))
            return
        self._values[spec.name] = "" if value is None else value

    @guarded(False)
    def do_start(self) -> bool:
        """Loads the model."""
        with exceptions_kept():
            with importing(self):
                from posesdk.gst.stream import PoseStream
            self._stream = PoseStream(self)
        return True

    @guarded(False)
    def do_stop(self) -> bool:
        """Frees the model."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            self._last_stats = stream.stats_json()
        return True

    @guarded(False)
    def do_set_caps(self, incaps: Any, outcaps: Any) -> bool:
        """Frames have another format from now on."""
        self._stream.set_format(frame_info(incaps))
        return True

    @guarded(False)
    def do_sink_event(self, event: Any) -> bool:
        """Waits for the last poses before the end; forgets all at a flush."""
        stream = self._stream
        if stream is not None:
            match event.type:
                case Gst.EventType.EOS:
                    stream.drain()
                case Gst.EventType.SEGMENT:
                    stream.set_segment(event.parse_segment())
                case Gst.EventType.FLUSH_START:
                    stream.flush()
                case Gst.EventType.FLUSH_STOP:
                    stream.restart()
        return bool(GstBase.BaseTransform.do_sink_event(self, event))

    @guarded(Gst.FlowReturn.ERROR)
    def do_transform_ip(self, buffer: Any) -> Any:
        """Finds the people in a frame."""
        return self._stream.process(buffer)
