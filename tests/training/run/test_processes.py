"""Several processes of a run over gloo, against one process that sees the same samples."""

import csv
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.train import RunInterrupted, fit

TinySet = tuple[Path, Path]

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="trains in forked processes"),
]


def run_as(rank: int, port: int, config: TrainConfig, folder: Path) -> None:
    """One of two processes, as `torchrun` starts them."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    torch.set_num_threads(1)  # the threads of the parent are not there
    try:
        fit(config, folder / "run", accelerator="cpu", devices=2)
    except RunInterrupted as stop:
        (folder / f"stopped{rank}").write_text(str(stop))
        os._exit(128 + stop.signal)


def start_both(config: TrainConfig, folder: Path) -> list[multiprocessing.Process]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_as, args=(rank, port, config, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[multiprocessing.Process]) -> list[int | None]:
    """Exit codes; that of a process that hangs is the one of its end by force."""
    for process in processes:
        process.join(240)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / "run" / "last.safetensors").state_dict


def losses(folder: Path) -> Tensor:
    with (folder / "run" / "log.csv").open() as file:
        return torch.tensor([[float(row[name]) for name in ("heatmap", "offset")] for row in csv.DictReader(file)])


@pytest.fixture
def gentle(tiny_run: ModuleType, tiny_set: TinySet):
    """Plain gradient descent in all but name: Adam divides by a constant, so that roundings stay roundings."""

    def config(**changes: object) -> TrainConfig:
        optimizer = {"kind": "adam", "learning_rate": 1e-4, "clip_norm": None, "schedule": "cosine"}
        return tiny_run.tiny_config(*tiny_set, **{"steps": 3, "optimizer": optimizer, **changes})

    return config


def test_two_processes_train_as_one_that_accumulates_their_batches(gentle, tmp_path: Path) -> None:
    """Every loss is on, batch norm takes the statistics of each batch in both."""
    assert finish(start_both(gentle(), tmp_path)) == [0, 0]
    one = tmp_path / "one"
    fit(gentle(accumulate=2), one / "run", accelerator="cpu")
    torch.testing.assert_close(losses(tmp_path), losses(one), rtol=1e-4, atol=1e-7)
    ours, theirs = weights(tmp_path), weights(one)
    for name, value in theirs.items():
        if "running_" not in name and "num_batches" not in name:  # those follow the first process alone
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=2e-6)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").metadata["samples"] == "12"


@pytest.mark.parametrize("dense", [True, False], ids=["joint", "second stage"])
def test_two_processes_train_branches_and_pose_networks_as_one(
    gentle, tiny_run: ModuleType, tmp_path: Path, dense: bool
) -> None:
    """Of a pass through one branch the stems of the others get no gradient, on a resting dense net nothing of it."""
    nets = {"encoder": 6, "hidden": (8, 7), "refinement_hidden": (9, 6), "refinement_head": 5, "embedding": 4}
    model = tiny_run.TINY_SPEC.model_dump() | {"method": "dac", "centers": "dual", "pose_nets": nets}
    phases = [{"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "dense": dense}]
    branches = ["8x", "4x", {"name": "2x", "area_range": (0, None)}]
    # Roundings of the dense net's first step would decide about candidates in the second.
    changes = {"model": model, "branches": branches, "phases": phases, "steps": 1 if dense else 3}
    assert finish(start_both(gentle(**changes), tmp_path)) == [0, 0]
    one = tmp_path / "one"
    fit(gentle(accumulate=2, **changes), one / "run", accelerator="cpu")
    ours, theirs = (torch.load(folder / "run" / "last.ckpt", weights_only=True)["model"] for folder in (tmp_path, one))
    assert any("stems.8x" in name for name in ours)
    for name, value in theirs.items():
        if "running_" not in name and "num_batches" not in name:  # those follow the first process alone
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=5e-6, msg=name)


def test_synchronised_norms_make_two_processes_one_with_a_batch_twice_as_large(gentle, tmp_path: Path) -> None:
    """With a loss that is a plain mean over the samples; running statistics included."""
    phases = [{"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": False}]
    loss = {"heatmap": "mse", "offset_factor": 1e-9}
    assert finish(start_both(gentle(sync_batchnorm=True, phases=phases, loss=loss), tmp_path)) == [0, 0]
    one = tmp_path / "one"
    fit(gentle(batch_size=4, phases=phases, loss=loss), one / "run", accelerator="cpu")
    torch.testing.assert_close(losses(tmp_path)[:, 0], losses(one)[:, 0], rtol=1e-5, atol=1e-8)
    ours, theirs = weights(tmp_path), weights(one)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=2e-6)


def test_signal_to_one_process_stops_both_after_the_same_step(gentle, tmp_path: Path) -> None:
    config = gentle(steps=5000, checkpoint_minutes=60)
    processes = start_both(config, tmp_path)
    while not (tmp_path / "run" / "log.csv").exists() and all(process.is_alive() for process in processes):
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert finish(processes) == [128 + signal.SIGTERM] * 2
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"]
    for rank in (0, 1):
        assert f"stopped by SIGTERM after step {step} of 5000" in (tmp_path / f"stopped{rank}").read_text()


@pytest.mark.parametrize("killed", [0, 1])
def test_process_whose_peer_is_killed_ends(gentle, tmp_path: Path, killed: int) -> None:
    data = gentle().data.model_copy(update={"workers": 1})
    processes = start_both(gentle(steps=5000, checkpoint_minutes=60, data=data), tmp_path)
    while not (tmp_path / "run" / "log.csv").exists() and all(process.is_alive() for process in processes):
        time.sleep(0.05)
    processes[killed].kill()
    codes = finish(processes)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] not in (0, -signal.SIGKILL)
