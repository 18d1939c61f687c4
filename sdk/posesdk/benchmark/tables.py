"""Tables for people: drawn on a terminal, Markdown everywhere else."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from posesdk.terminal import show_line, show_text

__all__ = ["NOTHING", "Table", "number_of", "show_table"]

LEAST_WIDTH = 3
"""Of a column of Markdown, by its line of dashes."""
FRAME_WIDTH = 3
"""What a column takes on a terminal beside its text."""
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
    """In several tables below one another where one is wider than the terminal, for a figure cut short is none."""
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(stderr=err)
    for part, columns in enumerate(_parts(table, console.width)):
        drawn = Drawn(title=None if part else table.title, title_justify="left")
        for column in columns:
            text = column < table.texts
            drawn.add_column(
                Text(table.headings[column]),
                justify="left" if text else "right",
                width=None if text else _least_width(table, column),
            )
        for row in table.rows:
            drawn.add_row(*(Text(row[column]) for column in columns))
        console.print(drawn)
    for note in table.notes:
        show_line(note, err=err)


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """The columns of each table that a terminal so wide takes: those of words in all of them, and as many others."""
    words = list(range(table.texts))
    room = width - 1 - sum(_least_width(table, column) + FRAME_WIDTH for column in words)
    part: list[int] = []
    taken = 0
    for column in range(table.texts, len(table.headings)):
        wanted = _least_width(table, column) + FRAME_WIDTH
        if part and taken + wanted > room:
            yield words + part
            part, taken = [], 0
        part.append(column)
        taken += wanted
    yield words + part


def _least_width(table: Table, column: int) -> int:
    """Headings and words may go on in the next line, figures may not."""
    cells = [row[column] for row in table.rows]
    parts = " ".join([table.headings[column], *(cells if column < table.texts else ())]).split()
    return max(map(len, [*parts, *(() if column < table.texts else cells)]), default=0)


def number_of(count: int, what: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"1 {what}" if count == 1 else f"{count} {what}s"
