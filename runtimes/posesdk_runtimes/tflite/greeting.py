"""Keeps one line of LiteRT from the screen."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_greeting"]

_GREETING = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.\r?\n?")
_lock = threading.Lock()
_greeted = threading.Event()


@contextmanager
def without_greeting() -> Iterator[None]:
    """Drops the line that XNNPACK begins with from standard error; all else that is written there comes a little later.

    The library writes it once in a process, past Python, and has no setting for it; after that nothing is done here.
    """
    if _greeted.is_set():
        yield
        return
    with _lock, _caught_stderr():
        yield


@contextmanager
def _caught_stderr() -> Iterator[None]:
    try:
        original = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            text, count = _GREETING.subn(b"", caught.read())
            if count:
                _greeted.set()
            if text:
                os.write(2, text)
