"""Keeps what the libraries of TFLite conversion say about themselves off the user's screen."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]

_NOISE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I\d{4} \d\d:\d\d:\d\d[^\n]*"
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb")\r?\n"
)
"""Lines that C++ code writes past Python, of level INFO."""
_LOGGERS = ("torchao", "torch.utils._pytree", "torch.onnx")
"""torchao names each CUDA library of its own that does not fit the CPU's torch; torch notes a use of its old names."""
_WARNINGS = (
    (FutureWarning, r".*LeafSpec"),
    (UserWarning, r"Warning: Enabling `experimental_preserve_all_tensors`"),
    (DeprecationWarning, r".*"),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops the known notes of litert-torch, torchao, jax and LiteRT; all else that is written comes a little later."""
    with _raised_levels(), warnings.catch_warnings(), _without_noise():
        for category, message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


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
    try:
        original = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            if text := _NOISE.sub(b"", caught.read()):
                os.write(2, text)
