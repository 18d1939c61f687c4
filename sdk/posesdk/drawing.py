"""Drawn pictures and videos on disk."""

import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.draw import draw_poses
from posesdk.outputs import writing
from posesdk.poses import Poses
from posesdk.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import PoseSDKError

__all__ = ["Drawing", "Target", "target_kind"]

FPS = 25.0
"""Of a drawn video whose source has no frame rate."""
CODECS = {".avi": "MJPG", ".m4v": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".mp4": "mp4v"}
"""What every OpenCV with FFmpeg encodes, by the end of the name."""
FALLBACK_SUFFIX = ".png"
"""Of a drawn picture whose source is in a format that OpenCV cannot write."""

Image = NDArray[np.uint8]
Target = Literal["folder", "picture", "video"]


def target_kind(target: Path) -> Target:
    """What drawn frames are written to: a folder, unless the name ends as that of a picture or video does."""
    if os.path.isdir(target):  # unlike Path's, without an error where it may not be looked at
        return "folder"
    suffix = target.suffix.lower()
    return "picture" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else "folder"


class Drawing:
    """Skeletons drawn on every frame: into a folder under the names of the sources, or into one picture or video file.

    `count` frames were drawn so far. An existing file is replaced, but never the one that the frame comes from.
    """

    def __init__(self, target: Path) -> None:
        self.target, self.kind = target, target_kind(target)
        self.count = 0
        self._taken: set[Path] = set()
        self._video: _Video | None = None
        if self.kind == "video" and target.suffix.lower() not in CODECS:
            raise PoseSDKError(f"cannot write video {target}: end the name in one of {', '.join(CODECS)}")
        if self.kind == "folder" and os.path.isfile(target):
            raise PoseSDKError(f"cannot draw into {target}: it is a file; name a folder, or a picture or video")
        with writing(target):
            (target if self.kind == "folder" else target.parent).mkdir(parents=True, exist_ok=True)

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Writes one picture, or one frame of the stream's video."""
        drawn = draw_poses(frame.image, poses)
        if self.kind == "picture" or (self.kind == "folder" and stream.pictures):
            self._write_picture(frame, drawn)
        else:
            self._video_of(stream, drawn).add(drawn)
        self.count += 1

    def close(self) -> None:
        """Completes the video."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _write_picture(self, frame: Frame, drawn: Image) -> None:
        source = Path(frame.info.source or "image")
        suffix = source.suffix if cv2.haveImageWriter(f"x{source.suffix or '?'}") else FALLBACK_SUFFIX
        path = self._free(source.stem, suffix, source)
        with writing(path):
            done, data = cv2.imencode(path.suffix, drawn)
            if not done:
                raise OSError(f"OpenCV cannot write pictures as {path.suffix}")
            path.write_bytes(data.tobytes())

    def _video_of(self, stream: FrameStream, drawn: Image) -> "_Video":
        if self._video is None or self._video.stream is not stream:
            self.close()
            source = Path(stream.name)
            name = source.stem.replace(":", "-") if "://" not in stream.name else "stream"
            self._video = _Video(self._free(name, ".mp4", source), stream, drawn)
        return self._video

    def _free(self, name: str, suffix: str, source: Path) -> Path:
        """Where to write the next picture or video: under a name that this run has not written yet."""
        path, number = self.target, 1
        if self.kind == "folder":
            path = self.target / f"{name}{suffix}"
            while path in self._taken:
                number += 1
                path = self.target / f"{name}-{number}{suffix}"
        if os.path.exists(path) and os.path.exists(source) and path.samefile(source):
            raise PoseSDKError(f"cannot draw to {path}: it is the source itself; name another file or folder")
        self._taken.add(path)
        return path


class _Video:
    """One video file, of the size of its first frame."""

    def __init__(self, path: Path, stream: FrameStream, first: Image) -> None:
        self.stream = stream
        self._path, self._size, self._count = path, first.shape[:2], 0
        if not _is_utf8(path):  # OpenCV ends the process
            raise PoseSDKError(f"cannot write video {path}: OpenCV writes names in UTF-8 only; name another")
        height, width = self._size
        with writing(path):
            path.touch()  # OpenCV does not say why it cannot
        code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path), code, stream.fps or FPS, (width, height))
        if not self._writer.isOpened():
            raise PoseSDKError(
                f"cannot write video {path}: this OpenCV cannot encode {width}x{height} px in it; "
                "try a name that ends in .avi, or draw pictures into a folder"
            )

    def add(self, drawn: Image) -> None:
        if drawn.shape[:2] != self._size:
            (height, width), (now_height, now_width) = self._size, drawn.shape[:2]
            raise PoseSDKError(
                f"cannot write video {self._path}: it is {width}x{height} and the next frame {now_width}x{now_height}; "
                "draw frames of different sizes into a folder"
            )
        self._writer.write(drawn)
        self._count += 1

    def close(self) -> None:
        self._writer.release()
        written = cv2.VideoCapture(str(self._path))  # the writer does not say that a disk is full
        whole = written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        written.release()
        if self._count and not whole:
            raise PoseSDKError(f"cannot write video {self._path}: what was written does not open; check the free space")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
