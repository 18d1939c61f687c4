"""Anything that a user may name as a source, as a stream of frames."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posesdk.images import is_pil, read_image, to_image
from posesdk.poses import FrameInfo
from posesdk.video import Frame, FrameStream, OnFault, open_camera, open_url, open_video, opencv_name
from posesdk_runtimes.errors import SourceError

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Source",
    "is_picture",
    "natural_order",
    "open_source",
    "read_image",
    "to_image",
]

Source = Any
"""A path, folder, glob, URL, camera number, image array, PIL image, or an iterable of images or image paths."""

_IMAGE_FORMATS = "avif bmp dib jp2 jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
_VIDEO_FORMATS = "3gp asf avi flv gif h264 h265 m4v mjpeg mjpg mkv mov mp4 mpeg mpg mts ts webm wmv"
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGE_FORMATS.split())
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO_FORMATS.split())

_log = logging.getLogger(__name__)


def open_source(source: Source, on_fault: OnFault | None = None) -> FrameStream:
    """The frames of a source, in order: a folder's pictures by name (2 before 10), a video's by time.

    A string or path is a URL, a camera number or device file, a folder, a file, or a glob of pictures; an int is a
    camera. Raises SourceError for a source that cannot be opened, TypeError for something that is no source.
    A fault that leaves other frames to do (one bad picture of several, a video that ends early) is given to
    `on_fault`; without one it is logged, and SourceError is raised after the last frame.
    """
    faults = _Faults(on_fault)
    stream = _open(source, faults)
    if on_fault is None:
        stream = FrameStream(
            stream.name,
            faults.raised_after(stream, stream.name),
            count=stream.count,
            fps=stream.fps,
            live=stream.live,
            pictures=stream.pictures,
        )
    return stream


class _Faults:
    """What is done with faults that leave other frames to do."""

    def __init__(self, on_fault: OnFault | None) -> None:
        self._on_fault = on_fault
        self._kept: list[SourceError] = []

    def __call__(self, fault: SourceError) -> None:
        if self._on_fault is not None:
            self._on_fault(fault)
            return
        _log.warning("%s", fault)
        self._kept.append(fault)

    def raised_after(self, frames: Iterable[Frame], name: str) -> Iterator[Frame]:
        yield from frames
        if len(self._kept) == 1:
            raise self._kept[0]
        if self._kept:
            raise SourceError(f"{name}: {len(self._kept)} images could not be read, the first: {self._kept[0]}")


def _open(source: Source, faults: OnFault) -> FrameStream:
    if isinstance(source, int) and not isinstance(source, bool):
        return open_camera(source, faults)
    if isinstance(source, str | os.PathLike):
        return _open_name(os.fspath(source), faults)
    if is_pil(source) or (isinstance(source, np.ndarray) and source.ndim < 4):
        frame = Frame(to_image(source), FrameInfo())
        return FrameStream("image", iter([frame]), count=1, pictures=True)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        count = len(source) if isinstance(source, Sized) else None
        return FrameStream("frames", _frames_of(source, faults), count=count)
    raise TypeError(
        f"expected a path, URL, camera number, image or iterable of images as source, got {type(source).__name__}"
    )


def _open_name(name: str, faults: OnFault) -> FrameStream:
    if not name:
        raise SourceError("cannot read a source: its name is empty; name a file, folder, glob, camera or URL")
    if "://" in name:
        return open_url(name, faults)
    try:
        return _open_path(name, faults)
    except OSError as error:
        raise SourceError(
            f"cannot read {name}: {error.strerror or error}; check the path and its permissions"
        ) from error


def _open_path(name: str, faults: OnFault) -> FrameStream:
    path = Path(name)
    if path.is_dir():
        return _open_folder(path, faults)
    if path.exists():
        return _open_file(path, faults)
    if name.isdecimal():
        return open_camera(int(name), faults)
    if glob.has_magic(name):
        found = [Path(entry) for entry in glob.glob(name, recursive=True) if is_picture(Path(entry))]
        if not found:
            raise SourceError(f"no image matches {name}; videos are named one by one")
        return _open_pictures(name, found, faults)
    raise SourceError(f"cannot read {name}: there is no such file or folder; check the path")


def _open_folder(folder: Path, faults: OnFault) -> FrameStream:
    entries = list(folder.iterdir())
    found = [entry for entry in entries if is_picture(entry)]
    if found:
        return _open_pictures(str(folder), found, faults)
    if any(entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries):
        raise SourceError(f"folder {folder} holds videos but no image; videos are named one by one")
    raise SourceError(f"folder {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")


def _open_file(path: Path, faults: OnFault) -> FrameStream:
    if path.is_char_device():
        return open_camera(path, faults)
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"cannot read {path}: the file is empty (0 bytes)")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or (suffix not in VIDEO_SUFFIXES and _holds_image(path)):
        frame = Frame(read_image(path), FrameInfo(str(path)))
        return FrameStream(str(path), iter([frame]), count=1, pictures=True)
    return open_video(path, faults)


def _holds_image(path: Path) -> bool:
    # A pipe can be read once only, so its content cannot be looked at first.
    return path.is_file() and cv2.haveImageReader(opencv_name(str(path)))


def _open_pictures(name: str, paths: list[Path], faults: OnFault) -> FrameStream:
    paths = sorted(paths, key=natural_order)
    return FrameStream(name, _frames_of(paths, faults), count=len(paths), pictures=True)


def _frames_of(images: Iterable[Any], faults: OnFault) -> Iterator[Frame]:
    for index, image in enumerate(images):
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        try:
            frame = Frame(to_image(image), FrameInfo(name, index))
        except SourceError as error:
            faults(error)
            continue
        yield frame


def is_picture(path: Path) -> bool:
    """Whether a file is named as a picture; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which 2.jpg stands before 10.jpg."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
