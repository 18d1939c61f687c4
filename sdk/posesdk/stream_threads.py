"""The threads of a stream of results, and the queues between them."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from posesdk.leaving import stop_at_the_end
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import RuntimeFault, SourceError

__all__ = ["CLOSE_S", "READ_AHEAD", "READ_AHEAD_LIVE", "Result", "StreamThreads"]

T = TypeVar("T")
Error = type[StopIteration] | BaseException

READ_AHEAD = 4
"""Most frames that are read and whose results the caller has not taken: two in work, two that wait before or after."""
READ_AHEAD_LIVE = 2
"""The same for a live source: both are in work, none grows old in a queue."""
CLOSE_S = 1.0
"""How long closing waits for threads; one that a silent camera or an iterable holds ends when that lets go of it. At
the end of the program a camera is waited for, since Python would stop the thread inside OpenCV, which aborts."""


@dataclass(slots=True, eq=False)
class Result(Generic[T]):
    """What came of a frame: a value, a fault that took its place, or an error; StopIteration is the end."""

    value: T | None = None
    fault: SourceError | None = None
    error: Error | None = None

    def get(self) -> T:
        """The value; else raises the error, which nothing here then holds, so that who catches it also frees it."""
        if self.error is None:
            return self.value  # type: ignore[return-value]  # None only where T allows it
        error, self.error = self.error, None
        try:
            raise error
        finally:
            del error


class StreamThreads(Generic[T]):
    """One thread that reads, and `workers` that each make the result of a frame at a time.

    The queues are plain ones, which may be put into from anywhere, also while garbage is collected; `_room` has an
    entry for every frame that may still be read, and so bounds all of them. `bounded` says that reading never takes for
    ever. Frames of a live source go through `live_work`.
    """

    def __init__(
        self, work: Callable[[Frame], T], live_work: Callable[[Frame], T], workers: int, *, bounded: bool
    ) -> None:
        self._work, self._live_work, self._workers, self._bounded = work, live_work, workers, bounded
        self._room: SimpleQueue[None] = SimpleQueue()
        self._jobs: SimpleQueue[tuple[int, Frame] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[int, Result[T]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._read_count = 0
        self._stopped = False
        self._last: Result[T] = Result(error=StopIteration)
        self._process = os.getpid()

    @property
    def have_begun(self) -> bool:
        """Whether they were started."""
        return bool(self._threads)

    def begin(self, source: FrameStream) -> None:
        """Starts the threads, if that has not been done. Raises what `wait` does."""
        self._require_going_on()
        if self._threads:
            return
        self._process = os.getpid()
        work = self._live_work if source.live else self._work
        for _ in range(READ_AHEAD_LIVE if source.live else READ_AHEAD):
            self.make_room()
        for number in range(self._workers):
            self._threads.append(
                threading.Thread(target=self._serve, args=(work,), name=f"posesdk-worker-{number}", daemon=True)
            )
        self._threads.append(threading.Thread(target=self._read, args=(source,), name="posesdk-reader", daemon=True))
        stop_at_the_end(self)
        for thread in self._threads:
            thread.start()

    def make_room(self) -> None:
        """Lets one more frame be read."""
        self._room.put(None)

    def wait(self) -> tuple[int, Result[T]]:
        """The next result that is there, with its place in the order.

        Raises StopIteration, or the error, once they have been stopped; RuntimeFault in a forked process.
        """
        found = self._results.get()
        self._require_going_on()
        assert found is not None  # what else is put in by `stop`
        return found

    def stop(self, timeout: float, error: Exception | None = None) -> None:
        """Wakes all up to end, and waits `timeout` seconds for the threads; not for the one that it is called in."""
        if not self._stopped:
            self._last = Result(error=error or StopIteration)
            self._stopped = True
            self._results.put(None)
            self.make_room()
            for _ in range(self._workers):
                self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            longest = timeout if self._bounded or thread is not self._threads[-1] else CLOSE_S
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, min(longest, deadline - time.monotonic())))

    def _require_going_on(self) -> None:
        if self._threads and self._process != os.getpid():
            raise RuntimeFault("a stream does not go on in a forked process, which has no threads; open another there")
        if self._stopped:
            last, self._last = self._last, Result(error=StopIteration)
            last.get()

    def tell_fault(self, fault: SourceError) -> None:
        """Gives a fault the place of a frame; called by the source, so in the reader's thread."""
        self._tell(self._count(), Result(fault=fault))
        self._wait_for_room()

    def _tell(self, turn: int, result: Result[T]) -> None:
        if not self._stopped:  # or an error that nobody takes would hold all that it came through
            self._results.put((turn, result))

    def _count(self) -> int:
        self._read_count += 1
        return self._read_count - 1

    def _wait_for_room(self) -> None:
        self._room.get()
        if self._stopped:
            raise _Stopped

    def _read(self, source: FrameStream) -> None:
        try:
            with source:
                self._read_frames(iter(source))
            self._tell(self._count(), Result(error=StopIteration))
        except BaseException as error:  # noqa: BLE001  (whoever takes the results gets it)
            self._tell(self._count(), Result(error=error))

    def _read_frames(self, frames: Iterator[Frame]) -> None:
        while True:
            self._wait_for_room()
            frame = next(frames, None)
            if frame is None:
                return
            if not frame.image.flags.owndata:  # it lies in the array of an iterable, which may fill it again
                frame = Frame(frame.image.copy(), frame.info)
            self._jobs.put((self._count(), frame))
            del frame  # or it would live until there is room for another

    def _serve(self, work: Callable[[Frame], T]) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._stopped:
                self._tell(job[0], _outcome(work, job[1]))
            del job


def _outcome(work: Callable[[Frame], T], frame: Frame) -> Result[T]:
    try:
        return Result(work(frame))
    except BaseException as error:  # noqa: BLE001  (whoever takes the results gets it)
        return Result(error=error)


class _Stopped(Exception):
    """Ends reading; nobody waits for it."""
