"""The command `posesdk`: Ctrl-C ends it in one line from here on, so nothing that takes time is imported above."""

import os

from posesdk.interrupts import end_at_once

__all__ = ["main"]


def main() -> None:
    """Entry point: a process of its own, so OpenCV and FFmpeg may be told to be quiet before they are loaded."""
    end_at_once()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import logging

    from posesdk.commands import app
    from posesdk.terminal import TerminalHandler

    for name in ("posesdk", "posesdk_runtimes"):
        logging.getLogger(name).addHandler(TerminalHandler(logging.WARNING))
    app(prog_name="posesdk")
