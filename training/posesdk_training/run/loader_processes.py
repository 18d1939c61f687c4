"""Batches from loader processes, which end with them: none outlives its run, and none holds up its end."""

import atexit
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from posesdk_runtimes.errors import DataError
from posesdk_training.data.batches import Batch
from posesdk_training.run.interruption import ignore_signals

__all__ = ["LoadedBatches", "start_loader_process"]

PATIENCE = 5.0
"""Seconds for a killed process to be gone; one that hangs in a driver may stay."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether the process that started a loader is still there."""


class LoadedBatches(Iterator[Batch]):
    """The batches of a loader, whose processes start at once and end with `close`, or else with the interpreter.

    torch ends them politely, which one that is busy or blocked and ignores SIGTERM does not hear; the interpreter
    would then wait for it for ever. Also an exception keeps alive the iterator that it came from, and so its processes.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._dataset = loader.dataset
        before = multiprocessing.active_children()
        self._batches: Iterator[Batch] = iter(loader)
        self._processes: list[BaseProcess] = [
            process for process in multiprocessing.active_children() if process not in before
        ]
        if self._processes:
            atexit.register(self.close)

    def __next__(self) -> Batch:
        """Raises DataError for a fault of the data."""
        try:
            return next(self._batches)
        except DataError as error:  # a loader process puts its traceback before the message
            raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2].strip()) from error

    @property
    def skipped(self) -> int:
        """How many images and shards could not be read so far, in all loader processes of this rank."""
        return int(getattr(self._dataset, "skipped", 0))

    def close(self) -> None:
        """Ends the processes: asks them first, then kills them."""
        atexit.unregister(self.close)
        if not self._processes:
            return
        self._batches._shutdown_workers()  # type: ignore[attr-defined]  # there is no public way
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join(PATIENCE)
        self._processes = []


def start_loader_process(_: int) -> None:
    """The first thing that a loader process does: it leaves signals to its parent, ends with it, and uses one core."""
    ignore_signals()
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """torch looks only between two batches, and then still writes what nobody reads any more."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)
