"""What a training run says about itself: its figures as CSV and in TensorBoard, and a progress bar."""

import csv
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

__all__ = ["LOG_FILE", "LOSS_NAMES", "ProgressBar", "RunLog"]

LOG_FILE = "log.csv"
LOSS_NAMES = ("heatmap", "offset", "oks", "refined")
COLUMNS = ("step", "samples_per_second", "learning_rate", *LOSS_NAMES)


class RunLog:
    """Means over `every` steps of `samples` each, written to `folder`; a context manager.

    `step` is where the run stands. What a killed run has logged beyond it is dropped: those steps are done again.
    """

    def __init__(self, folder: Path, *, step: int, every: int, samples: int) -> None:
        self._path = folder / LOG_FILE
        self._every = every
        self._samples = samples
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._count = 0
        self._started = time.monotonic()
        _drop_rows_after(step, self._path)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Takes in the figures of the step that ended as number `step`, and writes every `every` steps."""
        for name, value in figures.items():
            self._sums[name] += value
        self._count += 1
        if step % self._every:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        means = {name: value / self._count for name, value in self._sums.items()}
        row = {"step": step, "samples_per_second": round(self._count * self._samples / seconds, 2), **means}
        for name, value in row.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._append(row)
        self._sums.clear()
        self._count = 0
        self._started = time.monotonic()

    def _append(self, row: dict[str, float]) -> None:
        is_new = not self._path.exists() or self._path.stat().st_size == 0
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def _drop_rows_after(step: int, path: Path) -> None:
    """Keeps the header and the whole rows up to `step`."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines(keepends=True) or [""]
    numbers = [row.partition(",")[0] for row in rows]
    kept = [row for row, number in zip(rows, numbers, strict=True) if number.isdigit() and int(number) <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join([header, *(row for row in kept if row.endswith("\n"))]))
    os.replace(temporary, path)


class ProgressBar:
    """Steps done, of `end`, and the losses of the last one, on stderr where that is a terminal."""

    def __init__(self, start: int, end: int, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._progress.add_task("training", total=end, completed=start)

    def __enter__(self) -> Any:
        """A function to call with the figures of each step."""
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, figures: dict[str, float]) -> None:
        parts = " ".join(f"{name} {value:.4f}" for name, value in figures.items() if name in LOSS_NAMES)
        self._progress.update(self._task, advance=1, description=parts)
