"""The command `posesdk-convert`: Ctrl-C ends it in one line from here on, so nothing heavy is imported above."""

from posesdk.interrupts import end_at_once

__all__ = ["main"]


def main() -> None:
    """Entry point."""
    end_at_once()
    import logging

    from posesdk.terminal import TerminalHandler
    from posesdk_converters.program import app

    for package in ("posesdk", "posesdk_runtimes", "posesdk_converters"):
        logging.getLogger(package).addHandler(TerminalHandler(logging.WARNING))
    app(prog_name="posesdk-convert")
