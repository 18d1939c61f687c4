"""Poses of a camera that may die and come back: the model stays loaded, only the camera's part is built again.

    python samples/gstreamer/reconnect.py rtsp://camera/stream > poses.jsonl
    python samples/gstreamer/reconnect.py rtsp://camera/stream --draw

One JSON line per result on standard output; what happens to the camera is told on standard error.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence

from recovery import Source, explain, say, uri_of

from posesdk.gst import register
from posesdk.gst.bindings import GLib, Gst, GstBase


class Player:
    """Plays a pipeline until its end, an error outside of its sources, or Ctrl-C; the second one ends it at once.

    `ended` is called before the sources end, for streams that the caller feeds or joins himself.
    """

    def __init__(self, pipeline: Gst.Pipeline, sources: Sequence[Source], ended: Callable[[], None] | None) -> None:
        self.pipeline, self.sources, self.ended = pipeline, sources, ended
        self.loop, self.status, self.stopping = GLib.MainLoop(), 0, False

    def play(self, seconds: float) -> int:
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.hear)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        try:
            self.pipeline.set_state(Gst.State.PLAYING)
            for source in self.sources:
                source.start()
            if seconds:
                GLib.timeout_add(int(1000 * seconds), self.stop)
            self.loop.run()
        finally:
            self.pipeline.set_state(Gst.State.NULL)
            bus.remove_signal_watch()
        return self.status

    def stop(self, *_: object) -> bool:
        if self.stopping:
            self.loop.quit()  # asked a second time, or the end does not come through
            return False
        self.stopping = True
        if self.ended:
            self.ended()
        for source in self.sources:
            source.stop()
        GLib.timeout_add_seconds(5, self.stop)
        return False

    def hear(self, _: Gst.Bus, message: Gst.Message) -> None:
        if message.type == Gst.MessageType.ERROR and not any(source.take(message) for source in self.sources):
            if not message.src.has_as_ancestor(self.pipeline) and message.src is not self.pipeline:
                return  # of a part that is gone
            say(f"{self.name_of(message.src)}: {explain(*message.parse_error())}")
            self.status = 1
            self.loop.quit()
        elif message.type == Gst.MessageType.WARNING:
            say(f"{self.name_of(message.src)}: {explain(*message.parse_warning())}")
        elif message.type == Gst.MessageType.EOS:
            self.loop.quit()
        elif message.type == Gst.MessageType.LATENCY:
            self.pipeline.recalculate_latency()

    def name_of(self, element: Gst.Object) -> str:
        return next((source.name for source in self.sources if source.owns(element)), element.get_name())


def run(
    pipeline: Gst.Pipeline, sources: Sequence[Source], *, seconds: float = 0.0, ended: Callable[[], None] | None = None
) -> int:
    """Plays as `Player` says, at most `seconds`, without waiting for the first frame of a camera; the exit status."""

    def no_preroll(_: Gst.Bin, __: Gst.Bin, element: Gst.Element) -> None:
        if isinstance(element, GstBase.BaseSink):
            element.set_property("async", False)  # it would wait for a camera that is not there yet

    pipeline.connect("deep-element-added", no_preroll)
    for element in pipeline.children:
        if isinstance(element, Gst.Bin):
            element.set_property("async-handling", True)  # nor may a bin such as hlssink2
    return Player(pipeline, sources, ended).play(seconds)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="a bundle or the name of a model (default: the SDK's own)")
    parser.add_argument("--mode", default="auto", choices=("auto", "sync", "skip", "drop"), help="see logocappose")
    parser.add_argument("--silence", type=float, default=10.0, help="seconds without a frame that mean a dead camera")
    parser.add_argument("--longest-wait", type=float, default=30.0, help="most seconds between two tries")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after this time (default: at Ctrl-C)")


def quoted(text: str) -> str:
    """A value in a pipeline's description."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def window() -> str:
    """A window, or the whole screen of a board's console; exits without a display, where autovideosink can crash."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.path.exists("/dev/dri")):
        sys.exit("no display here to show the video on: leave the window out, or set DISPLAY")
    return "videoconvert ! autovideosink sync=false"


def head(uri: str, options: argparse.Namespace, *, name: str = "pose", settings: str = "") -> str:
    """The first elements behind a source: queue `NAME-entry`, then `logocappose` called NAME."""
    # A file must not lose frames; of a camera the newest count, and its thread must never wait.
    leaky = "" if uri.startswith("file:") else "leaky=downstream max-size-buffers=2"
    pose = f"logocappose name={name} mode={options.mode} {settings}"
    if options.model:
        pose += f" model={quoted(options.model)}"
    return f"queue name={name}-entry {leaky} ! videoconvert ! {pose}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="URI of a camera (rtsp://...) or a video file")
    parser.add_argument("--draw", action="store_true", help="show the camera with its poses in a window")
    add_options(parser)
    options = parser.parse_args()
    register()
    uri = uri_of(options.source)
    sink = window() if options.draw else "fakesink sync=false async=false"
    drawn = "draw=true" if options.draw else ""
    pipeline = Gst.parse_launch(f"{head(uri, options, settings=drawn)} ! {sink}")
    pipeline.get_by_name("pose").connect("poses", lambda _, __, line: print(line, flush=True))
    entry = pipeline.get_by_name("pose-entry")
    source = Source(pipeline, entry, uri, silence=options.silence, longest_wait=options.longest_wait)
    return run(pipeline, [source], seconds=options.seconds)


if __name__ == "__main__":
    sys.exit(main())
