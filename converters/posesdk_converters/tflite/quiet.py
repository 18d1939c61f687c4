"""Keeps what the libraries of TFLite conversion say and store about themselves away from the user."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]

_NOISE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I\d{4} \d\d:\d\d:[^\n]*"
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb")\r?\n"
)
"""Lines that C++ code writes past Python, of level INFO."""
_BEGINNINGS = (b"I", b"WARNING")
"""A line that begins like this is held back until its end."""
POLL, CHUNK = 0.1, 1 << 20
"""Seconds and bytes."""
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_LOGGERS = ("torchao", "torch.utils._pytree", "torch.onnx")
"""torchao names each CUDA library of its own that does not fit the CPU's torch; torch notes a use of its old names."""
_WARNINGS = (
    (FutureWarning, r".*LeafSpec"),
    (UserWarning, r"Warning: Enabling `experimental_preserve_all_tensors`"),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops the known notes of litert-torch, torchao, jax and LiteRT; all else that is written comes a moment later.

    Files that torch's compiler caches are gone at the end.
    """
    with _scratch_cache(), _raised_levels(), warnings.catch_warnings(), _without_noise():
        for category, message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


@contextlib.contextmanager
def _scratch_cache() -> Iterator[None]:
    before = os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_CACHE] = folder
        try:
            yield
        finally:
            del os.environ[_CACHE]
            if before is not None:
                os.environ[_CACHE] = before


@contextlib.contextmanager
def _raised_levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Standard error goes through a file, not a pipe: C++ code that holds Python's lock could fill a pipe and wait."""
    try:
        original = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as caught:
        done = threading.Event()
        pump = threading.Thread(target=_forward, args=(caught.fileno(), original, done), daemon=True)
        sys.stderr.flush()
        os.dup2(caught.fileno(), 2)
        pump.start()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            done.set()
            pump.join()
            os.close(original)


def _forward(source: int, target: int, done: threading.Event) -> None:
    """Writes to `target` what is appended to the file `source` and is no noise, until `done` is set."""
    position, held, last = 0, b"", False
    while not last:
        last = done.wait(POLL)
        while data := os.pread(source, CHUNK, position):
            position += len(data)
            text = _NOISE.sub(b"", held + data)
            start = text.rfind(b"\n") + 1
            held = text[start:] if text[start:].startswith(_BEGINNINGS) else b""
            os.write(target, text[: len(text) - len(held)])
    os.write(target, held)
