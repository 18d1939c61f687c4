"""A run of the detector over sources into outputs, in which one bad input does not cost the others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from posesdk.detector import Detector
from posesdk.interrupts import held_back
from posesdk.outputs import Output
from posesdk.poses import Poses
from posesdk.streaming import ResultStream, frames_at_once
from posesdk.video import Frame, FrameStream, OnFault
from posesdk_runtimes.errors import SourceError

__all__ = ["Batch", "Watch"]

Watch = Callable[[FrameStream], AbstractContextManager[Callable[[Poses], None]]]
"""Called for each source; what it gives is called for each of its frames: a progress bar."""


class Batch:
    """Counts, while it runs, the `frames` that were done, the single `pictures` among them, and the `faults`.

    Frames are read and worked on in threads while others are written; outputs and `on_fault` are called in the caller's
    thread, in the order of frames.
    People below the detector's threshold are only looked for where an output takes `everyone`.
    """

    def __init__(self, detector: Detector, outputs: Sequence[Output], on_fault: OnFault, *, everyone: bool) -> None:
        self.frames = self.pictures = self.faults = 0
        self._threshold, self._workers = detector.info.score_threshold, frames_at_once(detector.info.threads)
        shared = detector.share(self._workers)
        self._find = shared.detect_all if everyone else shared
        self._find_live = detector.detect_all if everyone else detector
        self._outputs, self._on_fault = outputs, on_fault

    def run(self, sources: Iterable[str], watch: Watch | None = None, stop: Callable[[], bool] | None = None) -> None:
        """Every source in turn, until `stop()`; one that cannot be read, or only in part, is given to `on_fault`."""
        for source in sources:
            try:
                results = ResultStream(
                    source, self._work, live_work=self._work_live, workers=self._workers, on_fault=self._fault
                )
            except SourceError as error:
                self._fault(error)
                continue
            with results, watch(results.source) if watch else nullcontext(_ignore) as seen:
                for poses in self._frames(results):
                    seen(poses)
                    if stop is not None and stop():
                        return

    def _work(self, frame: Frame) -> tuple[Frame, Poses]:
        return frame, self._find(frame)

    def _work_live(self, frame: Frame) -> tuple[Frame, Poses]:
        return frame, self._find_live(frame)

    def _frames(self, results: ResultStream[tuple[Frame, Poses]]) -> Iterator[Poses]:
        while True:
            try:
                result = next(results, None)
            except SourceError as error:  # a video without a single frame
                self._fault(error)
                return
            if result is None:
                return
            yield self._one(results.source, *result)

    def _one(self, stream: FrameStream, frame: Frame, everyone: Poses) -> Poses:
        poses = everyone.above(self._threshold)
        with held_back():  # every output has a frame, or none has
            for output in self._outputs:
                output.add(stream, frame, poses, everyone)
            self.frames += 1
            self.pictures += stream.pictures
        return poses

    def _fault(self, error: SourceError) -> None:
        self.faults += 1
        self._on_fault(error)


def _ignore(poses: Poses) -> None:
    """No one watches."""
