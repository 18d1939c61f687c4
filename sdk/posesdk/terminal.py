"""What the command line says, and with which exit code it ends."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from posesdk.interrupts import INTERRUPTED, end_in_order
from posesdk_runtimes.errors import MissingDependencyError, PoseSDKError

__all__ = [
    "FAILURE",
    "INTERRUPTED",
    "USAGE",
    "TerminalHandler",
    "reporting",
    "show_error",
    "show_line",
    "show_text",
]

FAILURE, USAGE = 1, 2

EXTRAS = {
    **dict.fromkeys(("lightning", "pycocotools", "tensorboard", "torch", "webdataset", "yaml"), "training"),
    **dict.fromkeys(("onnx", "onnxscript", "safetensors"), "convert"),
    "openvino": "openvino",
}
"""Which extra of the distribution brings a library that a plain install does not have."""


def show_line(text: str, *, err: bool = False) -> None:
    """One line on standard output or standard error, whatever the text holds (a file name may hold anything)."""
    show_text(" ".join(text.splitlines()) + "\n", err=err)


def show_text(text: str, *, err: bool = False) -> None:
    """A text as it is. Raises PoseSDKError where standard output cannot be written; standard error may fail."""
    try:
        typer.echo(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), nl=False, err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        if not err:
            raise PoseSDKError(f"cannot write to standard output: {error.strerror}; check the free space") from error


def show_error(error: Exception | str) -> None:
    """One line on standard error."""
    show_line(f"posesdk: error: {error}", err=True)


class TerminalHandler(logging.Handler):
    """Log records as lines on standard error, wherever that is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        show_line(f"posesdk: {record.levelname.lower()}: {record.getMessage()}", err=True)


@contextmanager
def reporting(*, torch_extra: str = "training") -> Iterator[None]:
    """Ends a command with one line and the exit code of the fault; a bug still shows where it is.

    `torch_extra`: which extra the command's user lacks where torch is missing, since several bring it.
    """
    try:
        end_in_order()
        yield
    except PoseSDKError as error:
        show_error(error)
        raise typer.Exit(error.exit_code) from error
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        extra = torch_extra if library == "torch" else EXTRAS[library]
        missing = MissingDependencyError(
            f"this command needs {library}, which is not installed; run: pip install 'posesdk[{extra}]'"
        )
        show_error(missing)
        raise typer.Exit(missing.exit_code) from error
    except KeyboardInterrupt as error:
        show_line("posesdk: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader has gone. Python would complain once more when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILURE) from error
