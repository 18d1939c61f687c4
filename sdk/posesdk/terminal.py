"""What the command line says, and with which exit code it ends."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from posesdk_runtimes.errors import PoseSDKError

__all__ = ["FAILURE", "INTERRUPTED", "USAGE", "TerminalHandler", "reporting", "show_error", "show_line"]

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


def show_line(text: str, *, err: bool = False) -> None:
    """One line on standard output or standard error, whatever the text holds (a file name may hold anything)."""
    line = " ".join(text.splitlines())
    typer.echo(line.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), err=err)


def show_error(error: Exception | str) -> None:
    """One line on standard error."""
    show_line(f"posesdk: error: {error}", err=True)


class TerminalHandler(logging.Handler):
    """Log records as lines on standard error, wherever that is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        show_line(f"posesdk: {record.levelname.lower()}: {record.getMessage()}", err=True)


@contextmanager
def reporting() -> Iterator[None]:
    """Ends a command with one line and the exit code of the fault; a bug still shows where it is."""
    try:
        yield
    except PoseSDKError as error:
        show_error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader has gone. Python would complain once more when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILURE) from error
