"""The command `posesdk-train compare`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting

__all__ = ["compare"]


def compare(
    reports: Annotated[list[Path], typer.Argument(help="Reports that `evaluate --json` or `--report` wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    difference: Annotated[bool, typer.Option("--difference", help="Say how far each is from the first.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every figure: each keypoint, each size of box.")] = False,
) -> None:
    """Print evaluation reports side by side: every figure, and the conditions in which they differ."""
    with reporting():
        from posesdk_training.files import require_files
        from posesdk_training.report.compare import compare_reports, read_report, report_names
        from posesdk_training.report.markdown import markdown_table, plain_table

        for path in reports:
            require_files({"REPORTS": path})
        named = dict(zip(report_names(reports), (read_report(path) for path in reports), strict=True))
        table = compare_reports(named, difference=difference, everything=everything)
        typer.echo(markdown_table(table) if markdown else plain_table(table))
