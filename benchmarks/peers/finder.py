"""What every compared model is to a benchmark: pictures or frames in, poses with the time of each stage out."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["STAGES", "Finder", "Found", "Image", "Laps", "Peer", "PeerModel", "nobody"]

STAGES = ("preprocess", "network", "decode")
"""What is timed: the way to the networks' inputs, all networks of the model, and all else up to the poses."""
AHEAD = 4
"""Most frames that are read and preprocessed before their turn."""

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
    """A model that finds people. With `everyone` also those that it is hardly sure of, as an evaluation wants."""

    title: str

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image (H, W, 3) uint8 BGR."""
        ...

    def stream(self, frames: Iterable[Image]) -> Iterator[int]:
        """How many people are in each frame, in order; frames are read and preprocessed while others are worked on."""
        ...


class Laps:
    """Milliseconds of each stage, from lap to lap; a stage may come several times."""

    def __init__(self, spent: dict[str, float] | None = None) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0) | (spent or {})
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Adds the time since the lap before to a stage."""
        now = time.perf_counter()
        self.spent[stage] += (now - self._last) * 1e3
        self._last = now


class PeerModel(Protocol):
    """A model in two steps, of which the first needs no network and may run ahead in another thread."""

    title: str

    def prepare(self, image: Image) -> tuple[Any, Laps]:
        """What `finish` needs of an image, and the time that it took."""
        ...

    def finish(self, prepared: Any, laps: Laps, *, everyone: bool) -> Found:
        """The people in the image."""
        ...


class Peer:
    """A model of others as a Finder."""

    def __init__(self, model: PeerModel) -> None:
        self.title, self.model = model.title, model

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        return self.model.finish(*self.model.prepare(image), everyone=everyone)

    def stream(self, frames: Iterable[Image]) -> Iterator[int]:
        """How many people are in each frame; one thread reads and prepares, the caller's runs the network."""
        source = iter(frames)

        def prepare_next() -> tuple[Any, dict[str, float]] | None:
            image = next(source, None)
            if image is None:
                return None
            prepared, laps = self.model.prepare(image)
            return prepared, laps.spent

        with ThreadPoolExecutor(1) as reader:
            waiting = deque(reader.submit(prepare_next) for _ in range(AHEAD))
            while (step := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(prepare_next))
                prepared, spent = step
                yield len(self.model.finish(prepared, Laps(spent), everyone=False).scores)


def nobody(laps: Laps) -> Found:
    """An image without people."""
    return Found(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32), laps.spent)
