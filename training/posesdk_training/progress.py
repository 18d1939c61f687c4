"""A bar on stderr for what takes longer than a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "progress"]


class Advance(Protocol):
    """What moves a bar."""

    def __call__(self, done: int, total: int | None = None, /) -> None:
        """So many things are done, of so many where that is known only now."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Advance]:
    """What to call with the number of things done; a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(done: int, total: int | None = None, /) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
