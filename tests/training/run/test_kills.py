"""Runs that are killed, and what is left of them: the weights and the log of a run that nobody disturbed."""

import csv
import errno
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posesdk_runtimes.errors import CheckpointError, DataError
from posesdk_training import train
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.run import folder as run_folder
from posesdk_training.run import state as run_state
from posesdk_training.run.log import RunLog
from posesdk_training.train import RunInterrupted, fit

TinySet = tuple[Path, Path]
STEPS = 8
EVERY_STEP = 1e-9
"""Minutes between checkpoints."""
ATOMIC = ("fsync", "link", "replace", "chmod")
"""Calls of `os` that a kill may come before."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes"),
]


@pytest.fixture(scope="module")
def config(tiny_run: ModuleType, tiny_set: TinySet) -> TrainConfig:
    return tiny_run.tiny_config(*tiny_set, steps=STEPS, log_every=2, checkpoint_minutes=EVERY_STEP)


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; trained with one thread, as the forked processes are."""
    folder = tmp_path_factory.mktemp("undisturbed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(config, folder, accelerator="cpu")
    finally:
        torch.set_num_threads(threads)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return [{key: row[key] for key in row if key != "samples_per_second"} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, other: Path) -> None:
    """Bit for bit: weights with their notes, the state to go on from, the log; TensorBoard's steps."""
    ours, theirs = (load_checkpoint(path / "last.safetensors") for path in (folder, other))
    assert ours.metadata == theirs.metadata
    assert all(torch.equal(ours.state_dict[key], value) for key, value in theirs.state_dict.items())
    ours, theirs = (torch.load(path / "last.ckpt", weights_only=True) for path in (folder, other))
    assert all(torch.equal(ours["model"][key], value) for key, value in theirs["model"].items())
    assert rows(folder) == rows(other)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/heatmap")] == list(range(2, STEPS + 1, 2))


def in_process(task: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
    def run() -> None:
        torch.set_num_threads(1)  # the threads of the parent are not there
        task(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def fit_until(config: TrainConfig, folder: Path, moment: int) -> None:
    """Kills itself before the `moment`th write to the disk, rename and the like of its checkpoints."""
    count = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return wrapped

    def half_written(state: Any, file: Any) -> None:
        nonlocal count
        count += 1
        if count == moment:
            file.write(b"PK\x03\x04" * 5000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)

    save = torch.save
    run_folder.torch.save = half_written
    for name in ATOMIC:
        setattr(os, name, counted(getattr(os, name)))
    fit(config, folder, accelerator="cpu")


def test_run_that_is_killed_in_every_part_of_a_checkpoint_equals_an_undisturbed_one(
    config: TrainConfig, undisturbed: Path, tmp_path: Path
) -> None:
    folder, kills, moment, reached = tmp_path / "run", 0, 1, 0
    while True:
        process = in_process(fit_until, config, folder, moment)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        states = [path for path in (folder / "last.ckpt", folder / "previous.ckpt") if path.exists()]
        steps = [torch.load(path, weights_only=True)["step"] for path in states]  # whole, whatever happened
        assert max(steps, default=0) >= reached
        reached = max(steps, default=0)
        moment += 1
    assert kills >= 12  # a checkpoint of a resumed run has as many moments
    assert_same_run(folder, undisturbed)
    assert not list(folder.glob("**/.*.tmp"))


def test_run_that_is_killed_from_outside_equals_an_undisturbed_one(
    config: TrainConfig, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for delay in (0.1, 0.25, 0.4):
        process = in_process(fit, config, folder)
        while process.is_alive() and not (folder / "last.ckpt").exists():
            time.sleep(0.01)
        process.join(delay)
        process.kill()
        process.join()
    fit(config, folder, accelerator="cpu")
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("damage", ["empty", "cut off", "one bit", "foreign", "missing"])
def test_damaged_state_falls_back_to_the_one_before(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = tmp_path / "run"
    fit(config, folder, accelerator="cpu", stop_after=5)
    path = folder / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    whole = path.read_bytes()
    found = {"empty": b"", "cut off": whole[: len(whole) // 2], "one bit": bytes(content), "foreign": b"no checkpoint"}
    path.unlink() if damage == "missing" else path.write_bytes(found[damage])
    with caplog.at_level(logging.WARNING, "posesdk_training"):
        fit(config, folder, accelerator="cpu")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"last.ckpt is {'missing' if damage == 'missing' else 'damaged'}")
    assert "previous.ckpt at step 4, steps up to 4, which were logged, are done again" in warning
    assert_same_run(folder, undisturbed)


def test_two_damaged_states_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged.*previous\.ckpt is damaged"):
        fit(config, tmp_path, accelerator="cpu")


def test_weights_that_a_kill_left_behind_their_state_are_written_again(
    config: TrainConfig, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    fit(config, folder, accelerator="cpu", stop_after=7)
    before = (folder / "last.safetensors").read_bytes()
    fit(config, folder, accelerator="cpu")
    (folder / "last.safetensors").write_bytes(before)
    fit(config, folder, accelerator="cpu")  # no step is left to take
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_step_and_saves(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    rarely = config.model_copy(update={"checkpoint_minutes": 60.0})
    with monkeypatch.context() as patch:
        signal_at(patch, 3, number)
        with pytest.raises(RunInterrupted, match=f"stopped by {number.name} after step 3 of {STEPS}") as caught:
            fit(rarely, folder, accelerator="cpu")
    assert caught.value.signal == number
    assert torch.load(folder / "last.ckpt", weights_only=True)["step"] == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    fit(config, folder, accelerator="cpu")
    assert_same_run(folder, undisturbed)


def signal_at(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Has this process sent a signal while it notes the figures of a step."""
    add = RunLog.add

    def added(log: RunLog, at: int, figures: Mapping[str, float]) -> None:
        if at == step:
            os.kill(os.getpid(), number)
        add(log, at, figures)

    patch.setattr(RunLog, "add", added)


def test_signal_in_the_last_step_leaves_a_finished_run(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would be left to go on with but the last preview and validation, which no later run would make up."""
    signal_at(monkeypatch, STEPS, signal.SIGTERM)
    looks: list[bool] = []
    monkeypatch.setattr(train, "Observation", lambda *_: SimpleNamespace(look=lambda last: looks.append(last)))
    fit(config, tmp_path, accelerator="cpu")
    assert looks == [False] * (STEPS - 1) + [True]
    assert_same_run(tmp_path, undisturbed)


def test_full_disk_ends_the_run_and_keeps_the_last_good_state(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the size of files stands for the disk."""
    folder = tmp_path / "run"
    fit(config, folder, accelerator="cpu", stop_after=5)
    good = (folder / "last.ckpt").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limit[1]))
        try:
            run_folder.write_state(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    with monkeypatch.context() as patch:
        patch.setattr(run_state, "write_state", on_a_full_disk)
        with pytest.raises(CheckpointError, match=r"cannot save step 6 to .*last\.ckpt: .*the last good"):
            fit(config, folder, accelerator="cpu")
    assert (folder / "last.ckpt").read_bytes() == good
    assert not list(folder.glob(".*.tmp"))
    fit(config, folder, accelerator="cpu")
    assert_same_run(folder, undisturbed)


def test_file_system_without_links_keeps_a_previous_state(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    fit(config, tmp_path, accelerator="cpu", stop_after=3)
    steps = [torch.load(tmp_path / name, weights_only=True)["step"] for name in ("last.ckpt", "previous.ckpt")]
    assert steps == [3, 2]


def test_folder_of_a_live_run_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    holder = in_process(hold, tmp_path)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(DataError, match=rf"in use by another run \(process {holder.pid} on {socket.gethostname()}"):
            fit(config, tmp_path, accelerator="cpu")
    finally:
        holder.kill()
        holder.join()
    fit(config, tmp_path, accelerator="cpu", stop_after=1)  # a lock ends with its process


def hold(folder: Path) -> None:
    with run_folder.lock_folder(folder):
        (folder / "held").touch()
        time.sleep(60)
