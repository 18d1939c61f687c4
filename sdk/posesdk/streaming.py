"""Frames of a source worked on while others are read: in threads, in order, and never more than a few at a time.

One thread reads, one or two work on a frame each, from its pixels to its result, and the caller takes the results.
Whole frames go side by side and not stage by stage, since no stage then waits for the longest one.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, TypeVar

from posesdk.leaving import stop_at_the_end
from posesdk.sources import Source, open_source
from posesdk.video import Frame, FrameStream, OnFault
from posesdk_runtimes.errors import RuntimeFault, SourceError

__all__ = ["READ_AHEAD", "READ_AHEAD_LIVE", "ResultStream", "Streams", "frames_at_once"]

T = TypeVar("T")

READ_AHEAD = 4
"""Most frames that are read and whose results the caller has not taken: two in work, two ready on either side."""
READ_AHEAD_LIVE = 2
"""The same for a live source: both are in work, none grows old in a queue."""
WORKERS = 2
"""Frames in work at a time; a third one gains nothing on two cores and costs memory."""
CLOSE_S = 1.0
"""How long closing waits for threads; one that a silent camera or an iterable holds ends when that lets go of it."""


def frames_at_once(threads: int | None) -> int:
    """How many frames to work on at a time for a detector with this many threads for a graph."""
    return WORKERS if threads is None else min(threads, WORKERS)


class ResultStream(Iterator[T]):
    """What `work` makes of each frame of `source`, in order; also a context manager that closes it.

    At most `READ_AHEAD` frames (`READ_AHEAD_LIVE` of a live source) are read before their results are taken; an array
    that an iterable gives is copied, so that it may be filled again. `source` is opened here, in the caller's thread,
    which raises its errors; from the first result on it, and `work`, run in other threads. What goes wrong there is
    raised, and `on_fault` called, where the caller has taken the results of all frames before. That, the end and
    `close` end the threads and free the source; an abandoned stream ends by itself soon after.
    """

    def __init__(
        self,
        source: Source,
        work: Callable[[Frame], T],
        *,
        workers: int = WORKERS,
        on_fault: OnFault | None = None,
    ) -> None:
        self._run: _Run[T] = _Run(work, workers)
        self.source: FrameStream = open_source(source, None if on_fault is None else self._run.tell_fault)
        self._on_fault = on_fault
        self._results: dict[int, _Result[T]] = {}  # that came before their turn
        self._turn = 0
        self._taking = threading.RLock()
        # Threads know the run alone, so that nobody but its user holds the stream.
        weakref.finalize(self, self._run.stop, 0.0).atexit = False

    def __next__(self) -> T:
        with self._taking:
            try:
                return self._take()
            except BaseException:
                self.close()
                raise

    def close(self, error: Exception | None = None) -> None:
        """Ends the stream, drops the results that wait, and frees the source; waits a second at most for threads.

        Whoever takes a result after that, or waits for one, finds the stream at its end, or gets the error once.
        """
        self._run.stop(CLOSE_S, error)
        self._results.clear()
        if not self._run.has_begun:
            self.source.close()

    def __enter__(self) -> "ResultStream[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> T:
        self._run.begin(self.source)
        while True:
            result = self._next_result()
            if result.fault is None:
                self._run.make_room()
                return result.get()
            if self._on_fault is not None:
                self._on_fault(result.fault)
            self._run.make_room()

    def _next_result(self) -> "_Result[T]":
        while (result := self._results.pop(self._turn, None)) is None:
            turn, other = self._run.wait()
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
        """Ends all; their users get the error."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Result(Generic[T]):
    """What came of a frame: a value, a fault that took its place, or an error; StopIteration is the end."""

    value: T | None = None
    fault: SourceError | None = None
    error: BaseException | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only where T allows it


class _Run(Generic[T]):
    """The threads of a stream and the queues between them.

    They are plain queues, which may be put into from anywhere, also while garbage is collected; `_room` has an entry
    for every frame that may still be read, and so bounds all of them.
    """

    def __init__(self, work: Callable[[Frame], T], workers: int) -> None:
        self._work, self._workers = work, workers
        self._room: SimpleQueue[None] = SimpleQueue()
        self._jobs: SimpleQueue[tuple[int, Frame] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[int, _Result[T]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._read_count = 0
        self._stopped = False
        self._error: Exception | None = None
        self._process = os.getpid()

    @property
    def has_begun(self) -> bool:
        return bool(self._threads)

    def begin(self, source: FrameStream) -> None:
        """Starts the threads, if that has not been done. Raises what `wait` does."""
        self._require_going_on()
        if self._threads:
            return
        self._process = os.getpid()
        for _ in range(READ_AHEAD_LIVE if source.live else READ_AHEAD):
            self.make_room()
        self._threads = [threading.Thread(target=self._read, args=(source,), name="posesdk-reader", daemon=True)]
        for number in range(self._workers):
            self._threads.append(threading.Thread(target=self._serve, name=f"posesdk-worker-{number}", daemon=True))
        stop_at_the_end(self)
        for thread in self._threads:
            thread.start()

    def make_room(self) -> None:
        """Lets one more frame be read."""
        self._room.put(None)

    def wait(self) -> tuple[int, _Result[T]]:
        """The next result that is there, with its place in the order.

        Raises StopIteration, or the error, once the run has been stopped; RuntimeFault in a forked process.
        """
        found = self._results.get()
        self._require_going_on()
        assert found is not None  # what else is put in when a run is stopped
        return found

    def stop(self, timeout: float, error: Exception | None = None) -> None:
        """Wakes all up to end, and waits `timeout` seconds for the threads; not for the one that it is called in."""
        if not self._stopped:
            self._error = error
            self._stopped = True
            self._results.put(None)
            self.make_room()
            for _ in range(self._workers):
                self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _require_going_on(self) -> None:
        if self._threads and self._process != os.getpid():
            raise RuntimeFault("a stream does not go on in a forked process, which has no threads; open another there")
        if self._stopped:
            error, self._error = self._error, None
            raise error or StopIteration

    def tell_fault(self, fault: SourceError) -> None:
        """Gives a fault the place of a frame; called by the source, so in the reader's thread."""
        self._results.put((self._count(), _Result(fault=fault)))
        self._wait_for_room()

    def _count(self) -> int:
        self._read_count += 1
        return self._read_count - 1

    def _wait_for_room(self) -> None:
        self._room.get()
        if self._stopped:
            raise StopIteration

    def _read(self, source: FrameStream) -> None:
        try:
            with source:
                self._read_frames(iter(source))
            end: BaseException = StopIteration()
        except BaseException as error:  # noqa: BLE001  (whoever takes the results gets it)
            end = error
        self._results.put((self._count(), _Result(error=end)))

    def _read_frames(self, frames: Iterator[Frame]) -> None:
        while True:
            self._wait_for_room()
            frame = next(frames)
            if not frame.image.flags.owndata:  # it lies in the array of an iterable, which may fill it again
                frame = Frame(frame.image.copy(), frame.info)
            self._jobs.put((self._count(), frame))
            del frame  # or it would live until there is room for another

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._stopped:
                self._results.put((job[0], self._outcome(job[1])))
            del job

    def _outcome(self, frame: Frame) -> _Result[T]:
        try:
            return _Result(self._work(frame))
        except BaseException as error:  # noqa: BLE001  (whoever takes the results gets it)
            return _Result(error=error)
