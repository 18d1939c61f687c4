"""Signals that end a run, so that its files stay whole."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["INTERRUPTED", "counted", "end_at_once", "end_in_order", "held_back", "stop_as_interrupted"]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a service manager's stop, a terminal that is closed; not every system has all of them."""
INTERRUPTED = 130
"""Exit code."""


def end_at_once(*names: str) -> None:
    """Lets each of these signals end the process with one line and exit code 130, until `end_in_order` is called.

    For the time in which a program loads its libraries and has nothing to leave whole: KeyboardInterrupt within an
    import shows where that was, or gets lost. Only those with these `names`, where some are given. Unless the process
    was told to ignore the signal (nohup).
    """
    for number in _numbers(names or NAMES):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def end_in_order() -> None:
    """Lets those of these signals raise KeyboardInterrupt that would end the process at once."""
    for number in _numbers():
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler)


def stop_as_interrupted() -> None:
    """Lets each of these signals raise KeyboardInterrupt, unless the process was told to ignore it (nohup)."""
    for number in _numbers():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Holds KeyboardInterrupt back until the block is done, but not a second one; only in the main thread."""
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    interrupting: list[int] = []
    if threading.current_thread() is threading.main_thread():
        interrupting = [number for number in _numbers() if signal.getsignal(number) is signal.default_int_handler]
    try:
        for number in interrupting:
            signal.signal(number, hold)
        yield
    finally:
        for number in interrupting:
            signal.signal(number, signal.default_int_handler)
    if held:
        raise KeyboardInterrupt


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts these signals instead of raising, for code that calls back from C, where an exception gets lost.

    Gives the count so far. The third one ends the process as if nobody had asked. Only in the main thread.
    """
    seen: list[int] = []

    def count(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            signal.signal(number, signal.SIG_DFL)

    replaced = {number: signal.getsignal(number) for number in _numbers()}
    replaced = {number: handler for number, handler in replaced.items() if handler is signal.default_int_handler}
    try:
        for number in replaced:
            signal.signal(number, count)
        yield lambda: len(seen)
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError, AttributeError):  # nobody reads standard error, or there is none
        sys.stderr.write("posesdk: interrupted\n")
        sys.stderr.flush()
    os._exit(INTERRUPTED)


def _numbers(names: Sequence[str] = NAMES) -> list[int]:
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
