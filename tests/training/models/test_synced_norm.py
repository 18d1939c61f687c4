"""Norms whose statistics are those of two processes, against plain norms that see the samples of both."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from posesdk_training.models.adaptation import AttentiveNorm
from posesdk_training.models.synced_norm import synchronise_norms

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs in forked processes")

SHARES = (3, 5)
"""Samples of each process."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), AttentiveNorm(4, 3))


def samples() -> tuple[Tensor, Tensor]:
    """Inputs, and what the output is multiplied by in the loss."""
    generator = torch.Generator().manual_seed(1)
    inputs = 2 + torch.randn(sum(SHARES), 2, 7, 7, generator=generator)
    return inputs, torch.randn(sum(SHARES), 4, 5, 5, generator=generator)


def results(model: nn.Sequential, inputs: Tensor, factors: Tensor) -> dict[str, Tensor]:
    output = model.train()(inputs)
    (output * factors).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"output": output.detach(), **gradients, **dict(model.named_buffers())}


def run_as(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)  # the threads of the parent are not there
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = network()
    synchronise_norms(model)
    inputs, factors = (value.split(SHARES)[rank] for value in samples())
    torch.save(results(model, inputs, factors), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_norms_of_two_processes_take_the_statistics_of_both(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_as, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    whole = results(network(), *samples())
    torch.testing.assert_close(torch.cat([first["output"], second["output"]]), whole["output"], rtol=1e-4, atol=1e-5)
    parameters = dict(network().named_parameters())
    for name in whole.keys() - {"output"}:
        found = first[name] + second[name] if name in parameters else first[name]
        torch.testing.assert_close(found, whole[name], rtol=1e-3, atol=1e-4)


def test_norms_of_a_single_process_stay_what_they_are() -> None:
    model = network()
    synchronise_norms(model)
    assert [type(model[1]), type(model[3])] == [nn.BatchNorm2d, AttentiveNorm]
