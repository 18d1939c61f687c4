"""Frames with time stamps, from video files, cameras and network streams."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.poses import FrameInfo
from posesdk_runtimes.errors import SourceError

__all__ = ["Frame", "FrameStream", "OnFault", "open_camera", "open_url", "open_video", "opencv_name"]

OnFault = Callable[[SourceError], None]
"""Called with a fault that costs frames but does not end the work."""

SHORT_FRAMES = 3
"""Frames that a container may promise and not hold; counts of some containers are estimates."""
SHORT_SECONDS = 0.5
"""The last frame may end this much before the duration that a container promises, or `SHORT_PART` of it."""
SHORT_PART = 0.02

WAIT_MS = 10_000
"""How long a network stream may stay silent; OpenCV's own 30 s also hold back an interruption."""
LAST_CAMERA = 99
"""OpenCV takes a backend's number times 100 from a larger one."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image (H, W, 3) uint8 BGR and where it comes from."""

    image: NDArray[np.uint8]
    info: FrameInfo


class FrameStream:
    """Frames to iterate once. `count` and `fps` are None where nobody knows them.

    A `live` stream runs until it is closed; `pictures` says that the frames are single images, without time.
    """

    def __init__(
        self,
        name: str,
        frames: Iterator[Frame],
        *,
        count: int | None = None,
        fps: float | None = None,
        live: bool = False,
        pictures: bool = False,
    ) -> None:
        self.name, self.count, self.fps, self.live, self.pictures = name, count, fps, live, pictures
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        """Frees the file or device."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> "FrameStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(path: Path, on_fault: OnFault) -> FrameStream:
    """The frames of a video file, upright as its container says, with the container's time stamps.

    Raises SourceError if it cannot be opened or holds no frame; one that ends early is told to `on_fault` at its end.
    """
    capture = cv2.VideoCapture(opencv_name(str(path)))
    if not capture.isOpened():
        raise SourceError(
            f"cannot open video {path}: it is damaged, cut off, no video, or in a format that this OpenCV cannot read; "
            "check that it plays"
        )
    return _file_stream(str(path), capture, on_fault)


def open_url(url: str, on_fault: OnFault) -> FrameStream:
    """The frames of a network stream (rtsp, http, ...); a user name and password in the URL are kept out of results.

    Raises SourceError where nothing opens within 10 s; a stream that then gives nothing for 10 s has ended.
    """
    name = _without_credentials(url)
    capture = cv2.VideoCapture(opencv_name(url), cv2.CAP_ANY, _patience())
    if not capture.isOpened():
        raise SourceError(f"cannot open stream {name}: no answer, or no video there; check the address and the network")
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return _file_stream(name, capture, on_fault)
    return _live_stream(name, capture, on_fault)


def open_camera(index: int | Path, on_fault: OnFault) -> FrameStream:
    """The frames of a camera by number or device file, timed from the first one."""
    if isinstance(index, int) and not 0 <= index <= LAST_CAMERA:  # OpenCV crashes on -1
        raise SourceError(f"cannot open camera {index}: expected a number from 0 to {LAST_CAMERA}, or a device file")
    capture = cv2.VideoCapture(index if isinstance(index, int) else opencv_name(str(index)))
    if not capture.isOpened():
        here = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(
            f"cannot open camera {index}: it is not there, or in use, or may not be read "
            f"(device files here: {here}); connect it, or name another"
        )
    return _live_stream(f"camera:{index}", capture, on_fault)


def opencv_name(name: str) -> str:
    """The same name. Raises SourceError for one that is not UTF-8, at which OpenCV's Python ends the process."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"cannot open {name}: OpenCV opens names in UTF-8 only; rename it") from error
    return name


def _file_stream(name: str, capture: cv2.VideoCapture, on_fault: OnFault) -> FrameStream:
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    promised, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    count = int(promised) if math.isfinite(promised) and promised > 0 else None
    rate = fps if math.isfinite(fps) and fps > 0 else None
    return FrameStream(name, _file_frames(name, capture, count, rate, on_fault), count=count, fps=rate)


def _file_frames(
    name: str, capture: cv2.VideoCapture, count: int | None, fps: float | None, on_fault: OnFault
) -> Iterator[Frame]:
    index, pts = 0, 0.0
    try:
        while (image := _read(capture)) is not None:
            pts = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if index > 0 and pts <= 0 and fps:  # a backend that knows no time stamps
                pts = index / fps
            yield Frame(image, FrameInfo(name, index, pts))
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise SourceError(f"cannot read video {name}: it holds no frame that can be decoded; check that it plays")
    if count is not None and _ends_early(index, pts, count, fps):
        on_fault(
            SourceError(f"video {name} ends early: {index} of {count} frames could be read; it is cut off or damaged")
        )


def _ends_early(index: int, pts: float, count: int, fps: float | None) -> bool:
    """Both by number and by time: the number alone is an estimate where the frame rate varies."""
    if count - index <= max(SHORT_FRAMES, SHORT_PART * count):
        return False
    if fps is None:
        return True
    duration = count / fps
    missing = duration - (pts + 1 / fps)
    return missing > max(SHORT_PART * duration, min(SHORT_SECONDS, duration / 4))


def _live_stream(name: str, capture: cv2.VideoCapture, on_fault: OnFault) -> FrameStream:
    fps = capture.get(cv2.CAP_PROP_FPS)
    rate = fps if math.isfinite(fps) and fps > 0 else None
    return FrameStream(name, _live_frames(name, capture, on_fault), fps=rate, live=True)


def _live_frames(name: str, capture: cv2.VideoCapture, on_fault: OnFault) -> Iterator[Frame]:
    index, start = 0, None
    try:
        while (image := _read(capture)) is not None:
            now = time.monotonic()
            start = now if start is None else start
            yield Frame(image, FrameInfo(name, index, now - start))
            index += 1
    finally:
        capture.release()
    on_fault(SourceError(f"{name} gave no more frames after {index}; check its connection"))


def _read(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    found, image = capture.read()
    if not found or image is None:
        return None
    return np.asarray(image, np.uint8)


def _patience() -> list[int]:
    """OpenCV's settings of how long to wait; a build without FFmpeg may know none, and would open nothing with them."""
    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getStreamBackends():
        return []
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, WAIT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, WAIT_MS]


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
