"""Loader processes end with what they work for, however busy they are."""

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from posesdk_training.data.batches import Batch
from posesdk_training.run.loader_processes import LoadedBatches, start_loader_process

LONG = 600.0
SOON = 60.0
"""Seconds, on a busy machine."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
]


class Samples(Dataset[torch.Tensor]):
    """The first ones come at once, the rest takes for ever; each tells its process before."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once

    def __getitem__(self, index: int) -> torch.Tensor:
        if index >= self._at_once:
            time.sleep(LONG)
        return torch.tensor(os.getpid())


def batches_of(samples: Samples) -> LoadedBatches:
    keys: Any = [[number] for number in range(100)]
    return LoadedBatches(
        DataLoader(samples, batch_sampler=keys, num_workers=1, collate_fn=_alone, worker_init_fn=start_loader_process)
    )


def _alone(samples: list[torch.Tensor]) -> torch.Tensor:
    return samples[0]


def process_of(batch: Batch | torch.Tensor) -> int:
    assert isinstance(batch, torch.Tensor)
    return int(batch)


def is_gone(pid: int) -> bool:
    """Also a process that has ended, and whose parent has not asked how."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def in_process(task: Callable[[Connection], None]) -> tuple[Any, Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=task, args=(theirs,))
    process.start()
    return process, ours


def keep_going(pipe: Connection) -> None:
    batches = batches_of(Samples(at_once=1))
    pipe.send(process_of(next(batches)))
    time.sleep(LONG)


def leave_open(pipe: Connection) -> None:
    """Goes through the end of an interpreter with a loader that something still refers to."""
    atexit._clear()  # what the tests have to do at their own end
    batches = batches_of(Samples(at_once=100))
    pipe.send(process_of(next(batches)))
    atexit._run_exitfuncs()


def test_loader_process_that_is_busy_ends_when_its_batches_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)  # seconds; 5 without
    batches = batches_of(Samples(at_once=1))
    pid = process_of(next(batches))
    before = time.monotonic()
    batches.close()
    assert is_gone(pid)
    assert time.monotonic() - before < SOON
    batches.close()  # does no harm


def test_loader_process_ends_with_a_parent_that_is_killed() -> None:
    process, pipe = in_process(keep_going)
    assert pipe.poll(SOON)
    pid = pipe.recv()
    assert not is_gone(pid)
    process.kill()
    process.join()
    assert wait_until(lambda: is_gone(pid))


def test_interpreter_ends_with_a_loader_that_was_left_open() -> None:
    process, pipe = in_process(leave_open)
    assert pipe.poll(SOON)
    pid = pipe.recv()
    process.join(SOON)
    assert process.exitcode == 0
    assert wait_until(lambda: is_gone(pid))


def test_signals_to_a_loader_process_are_left_to_its_parent() -> None:
    batches = batches_of(Samples(at_once=100))
    try:
        pid = process_of(next(batches))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert [process_of(next(batches)) for _ in range(5)] == [pid] * 5
    finally:
        batches.close()
