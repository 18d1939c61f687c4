"""The lanes of a TensorRT engine, lent to one caller at a time."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from posesdk_runtimes.errors import RuntimeFault
from posesdk_runtimes.tensorrt.lane import Lane, Shapes

__all__ = ["LanePool"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class LanePool:
    """Up to `limit` lanes, made when so many callers are there at once; further callers wait for one.

    Where a second or later lane cannot be made, for its memory or its profile, there are fewer from then on. `make` is
    not called by two threads at once.
    """

    def __init__(self, make: Callable[[], Lane], limit: int, path: object) -> None:
        self._make: Callable[[], Lane] | None = make
        self._limit = limit
        self._path = path
        self._made = 0
        self._idle: list[Lane] = []
        self._condition = threading.Condition()
        self._making = threading.Lock()

    def use(self, shapes: Shapes, work: Callable[[Lane], _Result]) -> _Result:
        """What `work` gives with a lane, if there is one with one that was last used with these shapes.

        A lane on which `work` fails is closed: what state it is in is not known.
        """
        lane = self._take(shapes)
        done = False
        try:
            result = work(lane)
            done = True
            return result
        finally:
            self._give_back(lane, reusable=done)

    def close(self) -> None:
        """Closes all lanes, those in use as soon as they are given back. Closing twice is harmless."""
        with self._condition:
            self._make = None
            idle, self._idle = self._idle, []
            self._made -= len(idle)
            self._condition.notify_all()
        for lane in idle:
            lane.close()

    def _take(self, shapes: Shapes) -> Lane:
        while True:
            with self._condition:
                while self._make and not self._idle and self._made >= self._limit:
                    self._condition.wait()
                make = self._make
                if make is None:
                    raise RuntimeFault(f"cannot run {self._path}: it has been closed; open it again")
                if self._idle:
                    return self._idle.pop(self._best(shapes))
                self._made += 1
            lane = self._try(make)
            if lane is not None:
                return lane

    def _best(self, shapes: Shapes) -> int:
        fitting = [index for index, lane in enumerate(self._idle) if lane.shapes == shapes]
        return fitting[-1] if fitting else -1

    def _try(self, make: Callable[[], Lane]) -> Lane | None:
        """A new lane; None where there is none to be had, but others are."""
        lane = None
        try:
            with self._making:
                lane = make()
            return lane
        except RuntimeFault as error:
            with self._condition:
                others = self._made - 1
                if others:
                    self._limit = others
            if not others:
                raise
            _log.info("%s runs at most %d times at once: %s", self._path, others, error)
            return None
        finally:
            if lane is None:
                with self._condition:
                    self._made -= 1
                    self._condition.notify_all()

    def _give_back(self, lane: Lane, *, reusable: bool) -> None:
        with self._condition:
            kept = reusable and self._make is not None
            if kept:
                self._idle.append(lane)
            else:
                self._made -= 1
            self._condition.notify()
        if not kept:
            lane.close()
