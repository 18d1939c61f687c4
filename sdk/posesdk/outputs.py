"""Where the poses of a run are written: JSON, JSON lines and COCO results."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import cv2

from posesdk.poses import SCHEMA_VERSION, Poses
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import PoseSDKError

__all__ = ["STDOUT", "CocoOutput", "JsonLinesOutput", "JsonOutput", "Output", "open_text", "writing"]

COCO_SCORE = 0.01
"""The lowest score of a person in COCO results: an evaluation wants also the unlikely ones."""
STDOUT = Path("-")


class Output(Protocol):
    """Takes every frame of a run in order.

    `poses` are the people above the threshold, `everyone` also those below it, if the run was asked for them.
    """

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Writes or keeps one frame."""
        ...

    def close(self) -> None:
        """Completes what was written; called once, also when a run is cut short."""
        ...


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write `path` into PoseSDKError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "err", None) or str(error)
        name = "to standard output" if path == STDOUT else path
        raise PoseSDKError(
            f"cannot write {name}: {reason}; check the path, its permissions and the free space"
        ) from error


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A text file to write, whose folder is made if need be; "-" is standard output. Raises PoseSDKError."""
    if path == STDOUT:
        yield sys.stdout
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    try:
        yield file
    finally:
        with writing(path):
            file.close()


class JsonOutput:
    """`{"v": 1, "frames": [...]}`, complete also after a run that was cut short."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path, self._count = file, path, 0
        with writing(path):
            file.write(f'{{"v": {SCHEMA_VERSION}, "frames": [')

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Writes one frame's object."""
        text = json.dumps(poses.to_dict(), allow_nan=False)
        with writing(self._path):
            self._file.write((",\n" if self._count else "\n") + text)
        self._count += 1

    def close(self) -> None:
        """Ends the list."""
        with writing(self._path):
            self._file.write("\n]}\n")
            self._file.flush()


class JsonLinesOutput:
    """One frame's object a line, each passed on at once."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Writes one line."""
        with writing(self._path):
            self._file.write(json.dumps(poses.to_dict(), allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing is left to write."""


class CocoOutput:
    """COCO keypoint results of every person down to a score of 0.01, with `file_name` beside `image_id`.

    A picture's `image_id` is its file name where that is a number that no other picture has; the rest get running
    numbers, from 1, that are no picture's name.
    """

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._frames: list[tuple[str, int | None, Poses]] = []

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Keeps one frame: numbers are given when all names are known."""
        name = Path(frame.info.source or stream.name).name
        stem = name.rsplit(".", 1)[0]
        number = int(stem) if stream.pictures and stem.isdecimal() else None
        self._frames.append((name, number, everyone.above(COCO_SCORE)))

    def close(self) -> None:
        """Writes the file."""
        results: list[dict[str, Any]] = []
        for (name, _, poses), image_id in zip(self._frames, self._image_ids(), strict=True):
            results += [entry | {"file_name": name} for entry in poses.to_coco(image_id)]
        with writing(self._path):
            self._file.write(json.dumps(results, allow_nan=False) + "\n")
            self._file.flush()

    def _image_ids(self) -> list[int]:
        named = {number for _, number, _ in self._frames if number is not None}
        used: set[int] = set()
        running, ids = 1, []
        for _, number, _ in self._frames:
            if number is None or number in used:
                while running in named or running in used:
                    running += 1
                number = running
            used.add(number)
            ids.append(number)
        return ids
