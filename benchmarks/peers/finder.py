"""What every compared model is to a benchmark: pictures or a video in, poses with the time of each stage out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posesdk.streaming import ResultStream, frames_at_once
from posesdk.video import Frame

__all__ = ["STAGES", "Finder", "Found", "Image", "Laps", "nobody", "stream_in_threads"]

STAGES = ("preprocess", "network", "decode")
"""What is timed: the way to the networks' inputs, all networks of the model, and all else up to the poses."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """`keypoints` (N, 17, 3) float32 x, y in pixels of the image and score, in COCO's order; `scores` (N,).

    `timing` is in ms, of each of STAGES.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    timing: dict[str, float]


class Finder(Protocol):
    """A model that finds people."""

    @property
    def title(self) -> str:
        """What tables and plots call it."""
        ...

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image (H, W, 3) uint8 BGR; `everyone`: also those that only an evaluation wants."""
        ...

    def stream(self, video: Path) -> ResultStream[Any]:
        """The people in every frame of a video: as a result with a length, the number of them."""
        ...


class Laps:
    """Milliseconds of each stage, from lap to lap; a stage may come several times."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Adds the time since the lap before to a stage."""
        now = time.perf_counter()
        self.spent[stage] += (now - self._last) * 1e3
        self._last = now


def nobody(laps: Laps) -> Found:
    """An image without people."""
    return Found(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32), laps.spent)


def stream_in_threads(finder: Finder, video: Path, threads: int) -> ResultStream[Any]:
    """The frames of a video through any model in the threads and queues that `Detector.stream` uses for its own."""

    def work(frame: Frame) -> NDArray[np.float32]:
        return finder.poses(frame.image).scores

    return ResultStream(video, work, workers=frames_at_once(threads))
