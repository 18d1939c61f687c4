"""What a training run says about itself: its figures as CSV and in TensorBoard, and a progress bar."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from posesdk_runtimes.errors import DataError
from posesdk_training.run.csv_log import CsvLog

__all__ = ["LOG_FILE", "VALIDATION_FILE", "ProgressBar", "RunLog"]

LOG_FILE = "log.csv"
VALIDATION_FILE = "validation.csv"
NO_LOSSES = ("learning_rate", "gradient_norm")
"""Figures of a step beside its losses."""
VALIDATION_COLUMNS = ("step", "AP", "AP50", "AP75", "APM", "APL", "AR")

State = dict[str, Any]


class RunLog:
    """Means over `every` steps of `samples` each, written to `folder`; a context manager. `losses` names their terms.

    `step` is where the run stands; what a killed run has logged beyond it is dropped. `state` is what waited for the
    next row then, as the method gave it, so that a resumed run writes the rows of an uninterrupted one.
    """

    def __init__(
        self,
        folder: Path,
        losses: Sequence[str],
        *,
        step: int,
        every: int,
        samples: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        waiting = state or {}
        self._every = every
        self._samples = samples
        self._sums: dict[str, float] = dict(waiting.get("sums", {}))
        self._counts: dict[str, int] = dict(waiting.get("counts", {}))
        self._steps: int = waiting.get("steps", 0)
        self._started = time.monotonic() - waiting.get("seconds", 0.0)
        columns = ("step", "samples_per_second", "learning_rate", *losses, "gradient_norm")
        self._table = CsvLog(folder / LOG_FILE, columns, step=step)
        self._validation = CsvLog(folder / VALIDATION_FILE, VALIDATION_COLUMNS, step=step)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def state(self) -> State:
        """What waits for the next row, for a checkpoint."""
        seconds = time.monotonic() - self._started
        return {"sums": dict(self._sums), "counts": dict(self._counts), "steps": self._steps, "seconds": seconds}

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Takes in the figures of the step that ended as number `step`, and writes every `every` steps.

        A mean is over the steps that had the figure: a skipped one has none. Raises DataError for a full disk.
        """
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        if step % self._every:
            return
        seconds = max(time.monotonic() - self._started, 1e-9)
        means = {name: value / self._counts[name] for name, value in self._sums.items()}
        row = {"step": step, "samples_per_second": round(self._steps * self._samples / seconds, 2), **means}
        self._scalars("train", row, step)
        self._table.add(row)
        self._sums, self._counts, self._steps = {}, {}, 0
        self._started = time.monotonic()

    def add_validation(self, step: int, stats: Mapping[str, float]) -> None:
        """Writes the accuracy after step `step`."""
        self._scalars("validation", stats, step)
        self._validation.add({"step": step, **stats})

    def add_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Shows a picture (H, W, 3) uint8 BGR in TensorBoard."""
        try:
            self._writer.add_image(name, image[..., ::-1], step, dataformats="HWC")
            self._writer.flush()
        except OSError as error:
            raise _full(error) from error

    def _scalars(self, section: str, values: Mapping[str, float], step: int) -> None:
        try:
            for name, value in values.items():
                if name != "step":
                    self._writer.add_scalar(f"{section}/{name}", value, step)
            self._writer.flush()  # before the state is saved, from which a run that was killed goes on
        except OSError as error:
            raise _full(error) from error


def _full(error: OSError) -> DataError:
    return DataError(f"cannot write TensorBoard's files: {error.strerror or error}; check the free space")


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

    def _advance(self, figures: Mapping[str, float]) -> None:
        parts = " ".join(f"{name} {value:.4f}" for name, value in figures.items() if name not in NO_LOSSES)
        self._progress.update(self._task, advance=1, description=parts)
