"""A progress bar on standard error, where someone is there to see it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from posesdk.batch import Watch
from posesdk.poses import Poses
from posesdk.video import FrameStream

__all__ = ["counting", "progress_bar"]


@contextmanager
def progress_bar(source_count: int, *, data_on_stdout: bool) -> Iterator[Watch | None]:
    """What to call for each source of a run; None where there is no terminal, or where data is written to it.

    One bar counts the sources, if there are several; another one the frames of a source that has more than one.
    """
    if not _is_terminal(sys.stderr) or (data_on_stdout and _is_terminal(sys.stdout)):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Lines for a terminal have to go around the bar; data for a pipe must not be touched.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=_is_terminal(sys.stdout))
    with bar:
        sources = bar.add_task("sources", total=source_count, visible=source_count > 1)

        @contextmanager
        def watch(stream: FrameStream) -> Iterator[Callable[[Poses], None]]:
            task = bar.add_task(stream.name, total=stream.count, visible=stream.count != 1)
            yield lambda poses: bar.update(task, completed=poses.frame.index + 1)
            bar.remove_task(task)
            bar.advance(sources)

        yield watch


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """What to call with the number of things that are done; a bar where standard error is a terminal."""
    if not _is_terminal(sys.stderr):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None where the process was started without it
