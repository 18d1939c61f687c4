"""A live source: the pictures of a video from memory, 30 a second by the clock of the pipeline, come what may."""

import threading
import time
from pathlib import Path
from typing import Any

import cv2

from posesdk.gst.bindings import GLib, Gst

FPS = 30
WIDTH, HEIGHT = 1280, 720
NEWEST_FEW = "max-bytes=0 max-buffers=4 leaky-type=downstream"
IN_MEMORY = 90
"""Pictures that are kept: 3 s, over and over; I420, as decoders and cameras give them, so 1.4 MB each."""


def source_launch(name: str, waiting: str = "max-bytes=0") -> str:
    """The appsrc that a `Camera` feeds: like a jitter buffer, it neither blocks nor throws away.

    With `waiting` of `NEWEST_FEW` it throws away, as a camera of its own does: nothing piles up.
    """
    caps = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
    return f"appsrc name={name} is-live=true format=time block=false {waiting} caps={caps}"


def load_pictures(video: Path) -> list[Any]:
    """The first 3 s of a video as Gst.Buffers."""
    planes = (cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420) for image in _decode(video))
    return [Gst.Buffer.new_wrapped(plane.tobytes()) for plane in planes]


def _decode(video: Path) -> list[Any]:
    capture, images = cv2.VideoCapture(str(video)), []
    while len(images) < IN_MEMORY:
        found, image = capture.read()
        if not found:
            break
        images.append(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    capture.release()
    if not images:
        raise SystemExit(f"cannot read {video}: give a video with --video")
    return images


class Camera(threading.Thread):
    """Gives `count` frames to an appsrc, each at its time; `phase` of a frame interval later than other cameras.

    `stop` ends it early; then comes EOS. `pushed` is how many it gave.
    """

    def __init__(self, source: Any, pictures: list[Any], count: int, phase: float = 0.0) -> None:
        super().__init__(name="camera", daemon=True)
        self._source, self._pictures, self._count, self._phase = source, pictures, count, phase
        self._stopping = threading.Event()
        self.pushed = 0

    def run(self) -> None:
        """Frames by the clock, then EOS."""
        clock, base = self._source.get_clock(), self._source.get_base_time()
        while self.pushed < self._count and not self._stopping.is_set():
            due = int((self.pushed + self._phase) * Gst.SECOND / FPS)
            time.sleep(max(0, due - (clock.get_time() - base)) / Gst.SECOND)
            self._push(due)
        self._source.emit("end-of-stream")

    def _push(self, due: int) -> None:
        picture = self._pictures[self.pushed % len(self._pictures)]
        buffer = picture.copy_region(Gst.BufferCopyFlags.MEMORY, 0, GLib.MAXSIZE)  # the same memory
        buffer.pts, buffer.duration = due, Gst.SECOND // FPS
        self._source.emit("push-buffer", buffer)
        self.pushed += 1

    def stop(self) -> None:
        """No more frames after this one."""
        self._stopping.set()
