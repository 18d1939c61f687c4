"""`Source`: the camera's part of a pipeline, which is built again when the camera died; the rest goes on.

Serves the samples here, and may serve a program of yours: it needs a pipeline and the element that the frames enter.
"""

import sys
import time
from pathlib import Path

from posesdk.gst import why_unavailable

if reason := why_unavailable():
    sys.exit(f"GStreamer cannot run here: {reason}")
from posesdk.gst.bindings import GLib, Gst


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def uri_of(place: str) -> str:
    """The URI of a camera or file; exits for a file that is not there."""
    if "://" in place:
        return place
    if not Path(place).is_file():
        sys.exit(f"{place}: no such file; give a path, or a URI such as rtsp://user:password@camera/stream")
    return Path(place).resolve().as_uri()


FRAME = Gst.SECOND // 25
"""Length of a frame that does not tell its own."""


class Source:
    """Frames of one URI for `entry`, an element in `pipeline` whose sink pad never blocks for long (a leaky queue).

    A camera is built again after an error, the end of its stream, or `silence` seconds without a frame, which no
    property of rtspsrc tells: a camera that loses its power closes no connection. The waits double from 1 s up to
    `longest_wait`. A file ends when it ends, or begins again with `loop`; `pace` plays it at its own speed. `gapless`
    takes the time without frames out of the stream: for files and segments, whose players would wait.
    """

    def __init__(
        self, pipeline: Gst.Pipeline, entry: Gst.Element, uri: str, *, name: str = "camera",
        silence: float = 10.0, longest_wait: float = 30.0, pace: bool = False, loop: bool = False,
        gapless: bool = False,
    ) -> None:  # fmt: skip
        self.pipeline, self.pad, self.uri, self.name = pipeline, entry.get_static_pad("sink"), uri, name
        self.silence, self.longest_wait, self.pace, self.gapless = silence, longest_wait, pace, gapless
        self.again = loop or not uri.startswith("file:")
        self.frames = self.restarts = self.failures = 0
        self.alive = self.ended = False
        self.last_frame = time.monotonic()
        self._bin: Gst.Bin | None = None
        self._segment = Gst.Segment()
        self._shift = self._end = self._build = 0

    def start(self) -> bool:
        """Builds the part of the camera and lets it run; False, so that it can be a timer's callback."""
        if self.ended:
            return False
        part = Gst.Bin.new(None)
        part.set_property("async-handling", True)  # its start must not pause the rest
        decode = Gst.ElementFactory.make("uridecodebin")
        sync = Gst.ElementFactory.make("clocksync")
        decode.set_property("uri", self.uri)
        part.add(decode)
        part.add(sync)
        part.add_pad(Gst.GhostPad.new("src", sync.get_static_pad("src")))
        decode.connect("source-setup", self._set_up)
        decode.connect("pad-added", lambda _, pad: self._link(pad, sync.get_static_pad("sink")))
        watched = Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_DOWNSTREAM
        self._bin, self._build, self.last_frame = part, self._build + 1, time.monotonic()
        # A number: a probe that held the part would keep it for ever.
        sync.get_static_pad("sink").add_probe(watched, self._watch, self._build)
        self.pipeline.add(part)
        part.get_static_pad("src").link(self.pad)
        part.sync_state_with_parent()
        GLib.timeout_add(200, self._check, self._build)
        return False

    def stop(self) -> None:
        """Takes the camera's part out and ends the stream downstream."""
        self.ended = True
        self._remove()
        self.pad.send_event(Gst.Event.new_eos())

    def owns(self, element: Gst.Object) -> bool:
        """Whether an element is in the camera's part."""
        return self._bin is not None and element.has_as_ancestor(self._bin)

    def take(self, message: Gst.Message) -> bool:
        """Whether the error is this source's own; then it is dealt with, unless it is the error of a file."""
        if not self.owns(message.src):
            return False
        if self.again:
            self._lost(self._build, explain(*message.parse_error()))
        return self.again

    def _set_up(self, _: Gst.Element, source: Gst.Element) -> None:
        if source.get_factory().get_name() != "rtspsrc":
            return
        Gst.util_set_object_arg(source, "protocols", "tcp")  # lost packets of UDP smear the picture
        source.set_property("latency", 200)
        source.set_property("tcp-timeout", int(self.silence * 1e6))
        source.connect("select-stream", lambda _, __, caps: "media=(string)video" in caps.to_string())

    def _link(self, pad: Gst.Pad, sink: Gst.Pad) -> None:
        if not sink.is_linked() and pad.query_caps(None).to_string().startswith("video/x-raw"):
            pad.link(sink)

    def _watch(self, pad: Gst.Pad, info: Gst.PadProbeInfo, build: int) -> Gst.PadProbeReturn:
        """In the streaming thread: notes frames, holds the end back."""
        if build != self._build or self._bin is None:
            return Gst.PadProbeReturn.DROP
        if info.type & Gst.PadProbeType.BUFFER:
            buffer = info.get_buffer()
            due = self._segment.to_running_time(Gst.Format.TIME, buffer.pts)
            if not self.alive:
                self.alive, self._shift = True, self._place(pad, due)
                GLib.idle_add(self._came, build)
            self.frames += 1
            self.last_frame = time.monotonic()
            self._end = due + self._shift + (FRAME if buffer.duration == Gst.CLOCK_TIME_NONE else buffer.duration)
            return Gst.PadProbeReturn.OK
        event = info.get_event()
        if event.type == Gst.EventType.SEGMENT:
            self._segment = event.parse_segment().copy()
        elif event.type == Gst.EventType.EOS and self.again:
            GLib.idle_add(self._lost, build, "the stream ended")
            return Gst.PadProbeReturn.DROP
        elif event.type == Gst.EventType.EOS:
            self.ended = True
        return Gst.PadProbeReturn.OK

    def _place(self, pad: Gst.Pad, due: int) -> int:
        """Where the part's first frame belongs, as a shift of all its times in nanoseconds.

        A camera's times are the pipeline's own; those of a file, and of a live stream over HTTP, begin at zero.
        """
        sync = pad.get_parent_element()
        query, clock, shift = Gst.Query.new_latency(), self.pipeline.get_clock(), 0
        live = pad.peer_query(query) and query.parse_latency()[0]
        sync.set_property("sync", self.pace and not live)
        if self.gapless and self._end:
            shift = self._end - due
        elif not live and clock:
            shift = max(0, clock.get_time() - self.pipeline.get_base_time() - due)
        sync.get_static_pad("src").set_offset(shift)
        return int(shift)

    def _came(self, build: int) -> bool:
        if build == self._build and self._bin is not None:
            if not (self.uri.startswith("file:") and self.restarts):
                say(f"{self.name}: frames arrive" + (f" again (restart {self.restarts})" if self.restarts else ""))
            self.failures = 0
            self.pipeline.recalculate_latency()
        return False

    def _check(self, build: int) -> bool:
        if build != self._build or self._bin is None or self.ended:
            return False
        if self.again and time.monotonic() - self.last_frame > self.silence:
            self._lost(build, f"no frame for {self.silence:g} s")
        return build == self._build and self._bin is not None

    def _lost(self, build: int, why: str) -> bool:
        if build == self._build and self._bin is not None and not self.ended:
            self._remove()
            wait = min(2**self.failures, self.longest_wait)
            self.failures, self.restarts = min(self.failures + 1, 30), self.restarts + 1
            if self.uri.startswith("file:") and self.frames:
                wait = 0.0
            else:
                say(f"{self.name}: {why}; next try in {wait:g} s")
            GLib.timeout_add(int(1000 * wait), self.start)
        return False

    def _remove(self) -> None:
        part, self._bin, self.alive = self._bin, None, False
        if part is not None:
            part.get_static_pad("src").unlink(self.pad)
            part.set_state(Gst.State.NULL)
            self.pipeline.remove(part)


def explain(error: GLib.Error, details: str | None) -> str:
    """What an error or warning on the bus says, with the last line of its details: the one that names the cause."""
    last = (details or "").strip().rpartition("\n")[2]
    return error.message if not last or error.message in last else f"{error.message.strip()} {last}"
