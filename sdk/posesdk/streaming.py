"""Frames of a source worked on while others are read: in threads, in order, and never more than a few at a time.

One thread reads, one or two work on a frame each, from its pixels to its result, and the caller takes the results.
Whole frames go side by side and not stage by stage, since no stage then waits for the longest one.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from posesdk.sources import Source, open_source
from posesdk.stream_threads import CLOSE_S, READ_AHEAD, READ_AHEAD_LIVE, Result, StreamThreads
from posesdk.video import Frame, FrameStream, OnFault

__all__ = ["READ_AHEAD", "READ_AHEAD_LIVE", "ResultStream", "Streams", "frames_at_once"]

T = TypeVar("T")

WORKERS = 2
"""Frames in work at a time; a third one gains nothing on two cores and costs memory."""


def frames_at_once(threads: int | None) -> int:
    """How many frames to work on at a time for a detector with this many threads for a graph."""
    return WORKERS if threads is None else min(threads, WORKERS)


class ResultStream(Iterator[T]):
    """What `work` makes of each frame of `source`, in order; also a context manager that closes it.

    At most `READ_AHEAD` frames are read before their results are taken, `READ_AHEAD_LIVE` of a live source: of that,
    the next frame is read when a result is taken, none is left out, and what the device or network does with those
    that nobody reads is its own matter. An array that an iterable gives is copied, so that it may be filled again.

    `source` is opened here, in the caller's thread, which raises its errors; from the first result on it is read, and
    `work` runs, in other threads. What goes wrong there is raised, and `on_fault` called, where the caller has taken
    the results of all frames before. That, the end and `close` end the threads and free the source; an abandoned
    stream ends by itself soon after.

    Frames of a live source go through `live_work`, if it is given: most often one is in work at a time there, whose
    poses are waited for.
    """

    def __init__(
        self,
        source: Source,
        work: Callable[[Frame], T],
        *,
        live_work: Callable[[Frame], T] | None = None,
        workers: int = WORKERS,
        on_fault: OnFault | None = None,
    ) -> None:
        self._threads: StreamThreads[T] = StreamThreads(
            work, live_work or work, workers, bounded=isinstance(source, str | os.PathLike | int)
        )
        self.source: FrameStream = open_source(source, None if on_fault is None else self._threads.tell_fault)
        self._on_fault = on_fault
        self._results: dict[int, Result[T]] = {}  # that came before their turn
        self._turn = 0
        self._taking = threading.RLock()
        # The threads do not know the stream, so that nobody but its user holds it.
        weakref.finalize(self, self._threads.stop, 0.0).atexit = False

    def __next__(self) -> T:
        with self._taking:
            try:
                return self._take()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Ends the stream, drops the results that wait, and frees the source; waits a second at most for threads."""
        self._threads.stop(CLOSE_S)
        self._results.clear()
        if not self._threads.have_begun:
            self.source.close()

    def __enter__(self) -> "ResultStream[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> T:
        self._threads.begin(self.source)
        while True:
            result = self._next_result()
            if result.fault is not None and self._on_fault is not None:
                self._on_fault(result.fault)
            self._threads.make_room()
            if result.fault is None:
                return result.get()

    def _next_result(self) -> Result[T]:
        while (result := self._results.pop(self._turn, None)) is None:
            turn, other = self._threads.wait()
            self._results[turn] = other
        self._turn += 1
        return result


class Streams:
    """The streams of a detector that are in use, to end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: weakref.WeakSet[ResultStream[Any]] = weakref.WeakSet()

    def add(self, stream: ResultStream[Any]) -> None:
        """Has it end with the detector, if it is in use until then."""
        with self._lock:
            self._streams.add(stream)

    def close(self, error: Exception) -> None:
        """Ends all; who takes a result after that, or waits for one, gets the error."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream._threads.stop(0.0, error)
        for stream in streams:
            stream.close()
