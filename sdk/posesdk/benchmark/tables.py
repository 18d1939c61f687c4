"""Tables for people: drawn on a terminal, Markdown everywhere else."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from posesdk.terminal import show_line, show_text

__all__ = ["NOTHING", "Table", "show_table"]

LEAST_WIDTH = 3
"""Of a column of Markdown, by its line of dashes."""
NOTHING = "-"
"""In the place of a figure that was not measured, or cannot be."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title, with notes below; the first `texts` columns are words, all else numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    texts: int = 1


def show_table(table: Table, *, err: bool) -> None:
    """Shows a table on standard output, or on standard error where standard output holds data."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None and stream.isatty():
        _draw(table, err=err)
    else:
        show_text("\n".join(_markdown(table)) + "\n\n", err=err)


def _markdown(table: Table) -> Iterator[str]:
    yield f"### {table.title}"
    yield ""
    rows = (table.headings, *table.rows)
    widths = [max(LEAST_WIDTH, *(len(row[column]) for row in rows)) for column in range(len(table.headings))]
    for row in (table.headings, None, *table.rows):
        cells = []
        for column, width in enumerate(widths):
            text = column < table.texts
            if row is None:
                cells.append("-" * width if text else "-" * (width - 1) + ":")
            else:
                cell = row[column].replace("|", "\\|")
                cells.append(cell.ljust(width) if text else cell.rjust(width))
        yield f"| {' | '.join(cells)} |"
    if table.notes:
        yield ""
        yield from (f"- {note}" for note in table.notes)


def _draw(table: Table, *, err: bool) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(title=table.title, title_justify="left")
    for column, heading in enumerate(table.headings):
        drawn.add_column(Text(heading), justify="left" if column < table.texts else "right")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    Console(stderr=err).print(drawn)
    for note in table.notes:
        show_line(note, err=err)
