"""The frames that are measured with: read once, so that reading them is a stage of its own and no disk disturbs."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import Bundle
from posesdk.detector import Detector
from posesdk.images import decode_image
from posesdk.poses import Poses
from posesdk.sources import open_source
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import BundleError, SourceError

__all__ = ["Frames", "PictureFrames", "VideoFrames", "golden_frames", "read_frames"]

MOST_FRAMES = 300
MOST_BYTES = 512 << 20
"""Frames of a source that are used, from its beginning, and what they may take in memory; at least one is."""

Image = NDArray[np.uint8]

_log = logging.getLogger(__name__)


class Frames(Protocol):
    """Frames by number, as often as wanted."""

    @property
    def name(self) -> str:
        """The source in words."""
        ...

    @property
    def one_size(self) -> bool:
        """Whether all are as large as the first."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def load(self, index: int) -> tuple[Image, float]:
        """A frame (H, W, 3) uint8 BGR and the ms of decoding it."""
        ...

    def stream(self, detector: Detector, seconds: float) -> Iterator[Poses]:
        """What `Detector.stream` finds in the frames, over and over for so long; it decodes them, too."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PictureFrames:
    """Files of pictures in memory; decoded anew each time."""

    name: str
    files: tuple[tuple[str, bytes], ...]
    one_size: bool = True

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> tuple[Image, float]:
        """Decodes one. Raises SourceError for a picture that cannot be decoded."""
        path, data = self.files[index]
        start = time.perf_counter()
        image = decode_image(data, path)
        return image, (time.perf_counter() - start) * 1e3

    def stream(self, detector: Detector, seconds: float) -> Iterator[Poses]:
        """As an iterable of pictures that decodes one after the other."""
        return detector.stream(self._feed(seconds))

    def _feed(self, seconds: float) -> Iterator[Image]:
        end, index = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            yield self.load(index % len(self))[0]
            index += 1


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrames:
    """Decoded frames of a video; a video is decoded in order, so each one's ms were taken when it was read."""

    name: str
    images: tuple[Image, ...]
    milliseconds: tuple[float, ...]

    @property
    def one_size(self) -> bool:
        """A video's frames all are."""
        return True

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> tuple[Image, float]:
        """A frame, and what decoding it has taken."""
        return self.images[index], self.milliseconds[index]

    def stream(self, detector: Detector, seconds: float) -> Iterator[Poses]:
        """As the file itself, from its beginning as far as the frames in memory go."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            with detector.stream(self.name, _ignore) as stream:
                for poses in islice(stream, len(self)):
                    yield poses
                    if time.perf_counter() >= end:
                        return


def read_frames(source: str) -> Frames:
    """The frames of a picture, of a folder or glob of pictures, or of a video: at most 300, and at most 512 MiB.

    What of it cannot be read is left out with a warning. Raises SourceError where that is everything, and for cameras
    and streams, which cannot be read twice.
    """
    faults: list[SourceError] = []
    with open_source(source, faults.append) as stream:
        if stream.live:
            raise SourceError(
                f"cannot measure with {stream.name}: it gives each frame once; record a video of it first"
            )
        frames: Frames = _read_pictures(stream) if stream.pictures else _read_video(stream)
    if not len(frames):
        raise faults[0]
    for fault in faults:
        _log.warning("measuring with the rest: %s", fault)
    return frames


def golden_frames(bundles: list[Bundle], default: Path) -> Frames:
    """The golden picture of the first bundle that has one, else that of the bundle at `default`. Raises BundleError."""
    from posesdk.bundle import GOLDEN_IMAGE, open_bundle

    for bundle in bundles:
        if (golden := bundle.golden()) is not None:
            return PictureFrames(f"the golden picture of {bundle.manifest.id}", ((GOLDEN_IMAGE, golden.image),))
    golden = open_bundle(default).golden()
    if golden is None:
        raise BundleError(f"no picture to measure with: neither the bundles nor {default} hold one; give a --source")
    return PictureFrames("the golden picture of the default model", ((GOLDEN_IMAGE, golden.image),))


def _read_pictures(stream: FrameStream) -> PictureFrames:
    files: list[tuple[str, bytes]] = []
    sizes = set()
    for frame in _within_limits(stream):
        path = str(frame.info.source)
        sizes.add(frame.image.shape[:2])
        try:
            files.append((path, Path(path).read_bytes()))
        except OSError as error:
            raise SourceError(f"cannot read image {path}: {error.strerror or error}") from error
    return PictureFrames(stream.name, tuple(files), len(sizes) <= 1)


def _read_video(stream: FrameStream) -> VideoFrames:
    images: list[Image] = []
    milliseconds: list[float] = []
    start = time.perf_counter()
    for frame in _within_limits(stream):
        milliseconds.append((time.perf_counter() - start) * 1e3)
        images.append(frame.image)
        start = time.perf_counter()
    return VideoFrames(stream.name, tuple(images), tuple(milliseconds))


def _within_limits(stream: FrameStream) -> Iterator[Frame]:
    taken = 0
    for frame in islice(stream, MOST_FRAMES):
        taken += frame.image.nbytes
        if taken > MOST_BYTES and taken > frame.image.nbytes:
            return
        yield frame


def _ignore(fault: SourceError) -> None:
    """It was told when the frames were read."""
