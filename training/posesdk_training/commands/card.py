"""The command `posesdk-train card`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import FAILURE, USAGE, reporting, show_error

__all__ = ["card"]


def card(
    path: Annotated[Path, typer.Argument(metavar="CARD", help="A model card, Markdown; made where there is none.")],
    reports: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=REPORT]...", help="Reports of `evaluate --json` to keep beside it: full, none."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a figure is stale.")] = False,
) -> None:
    """Fill the measured blocks of a model card from evaluation reports, which are kept beside it."""
    with reporting():
        from posesdk_training.files import write_text
        from posesdk_training.report.card import filled_card, new_card, read_card, store_report, stored_reports

        for entry in reports or ():
            name, found, report = entry.partition("=")
            if not found or not name.isidentifier() or check:
                show_error(f"expected NAME=REPORT.json, and none with --check, got {entry!r}")
                raise typer.Exit(USAGE)
            store_report(path, name, Path(report))
        if not path.exists() and not check:
            write_text(path, new_card(path.stem))
        text, stored = read_card(path), stored_reports(path)
        filled = filled_card(text, stored) if stored else text
        if check and filled != text:
            show_error(f"{path} has other figures than its reports; run `posesdk-train card {path}`")
            raise typer.Exit(FAILURE)
        if not check:
            write_text(path, filled)
        typer.echo(str(path))
