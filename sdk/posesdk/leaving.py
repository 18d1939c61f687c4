"""Lets a program end while its pipelines still play.

At its end Python stops every other thread as soon as that asks to run on. In the C++ code of a model's runtime or of
OpenCV that aborts the process, so no thread may be in there by then.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["at_work", "has_begun", "stop_at_the_end"]

LONGEST_S = 11.0
"""What threads may need to come out: a model's run, the callback of an application, and the time that `posesdk.video`
waits for a network that has fallen silent."""


class Stoppable(Protocol):
    """What runs in a thread of its own."""

    def stop(self, timeout: float) -> None:
        """Returns when its thread has ended, or after `timeout` seconds."""


class _Leaving:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As at the start: a process that was forked has none of the threads."""
        self.begun = False
        self.changed = threading.Condition()
        self.at_work = 0
        self.threads: weakref.WeakSet[Stoppable] = weakref.WeakSet()

    def leave(self) -> None:
        deadline = time.monotonic() + LONGEST_S
        with self.changed:
            self.begun = True
            self.changed.wait_for(lambda: self.at_work == 0, LONGEST_S)
        for thread in list(self.threads):
            thread.stop(max(0.0, deadline - time.monotonic()))


_leaving = _Leaving()
atexit.register(_leaving.leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leaving.forget)


def has_begun() -> bool:
    """Whether the program ends."""
    return _leaving.begun


@contextmanager
def at_work() -> Iterator[bool]:
    """The end of the program waits while this is entered; gives False where it has begun: then leave at once."""
    with _leaving.changed:
        may_work = not _leaving.begun
        _leaving.at_work += may_work
    try:
        yield may_work
    finally:
        if may_work:
            with _leaving.changed:
                _leaving.at_work -= 1
                _leaving.changed.notify_all()


def stop_at_the_end(thread: Stoppable) -> None:
    """Has it stopped at the end of the program, if it lives until then."""
    _leaving.threads.add(thread)
