"""Signals that ask a run to stop."""

import signal
import threading
from types import FrameType
from typing import Any

from posesdk_runtimes.errors import PoseSDKError

__all__ = ["RunInterrupted", "StopRequest", "ignore_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(PoseSDKError):
    """A run was asked to stop by `signal`, and has saved its state."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopRequest:
    """Takes note of the first SIGINT or SIGTERM in `signal`; the next one acts as it would have. A context manager.

    Signals are left alone outside of the main thread, where Python cannot take them.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self.__exit__()


def ignore_signals() -> None:
    """For loader processes: signals to the whole group must not take away the data of the step that is finished."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
