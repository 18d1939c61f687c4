"""The command `posesdk-train`: Ctrl-C ends it in one line from here on, so nothing heavy is imported above."""

from posesdk.interrupts import end_at_once

__all__ = ["main"]


def main() -> None:
    """Entry point."""
    end_at_once("SIGINT")  # a stop by SIGTERM has an exit code of its own
    from posesdk_training.program import app

    app(prog_name="posesdk-train")
