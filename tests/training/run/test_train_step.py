"""Steps of several batches, and steps that fail."""

import csv
import logging
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch
from posesdk_training.run.objective import Objective
from posesdk_training.run.state import Run
from posesdk_training.run.train_step import Stepper
from posesdk_training.train import NonFiniteLossError, OutOfMemoryFault, fit, loaded_batches

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")


def gradients(config: TrainConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Those of the first step, whose learning rate is next to nothing."""
    fabric = Fabric(accelerator="cpu")
    fabric.seed_everything(config.seed, verbose=False)
    run = Run(config, folder, fabric)
    run.module.train()
    batches = loaded_batches(run)
    Stepper(run).take([next(batches) for _ in range(config.accumulate)])
    return {name: value.grad for name, value in run.network.named_parameters() if value.grad is not None}


def test_two_halves_of_a_batch_of_equal_samples_give_the_gradient_of_the_whole(
    tiny_run: ModuleType, tmp_path: Path
) -> None:
    """One photo, no augmentation: the statistics of batch norm and the normalisers of the losses are those of both."""
    one = tiny_run.write_tiny_set(tmp_path, images=1)
    augment = {"crop": {"scale": (1, 1), "shift": 0}, "rotation": 0, "flip_probability": 0}
    whole = gradients(tiny_run.tiny_config(*one, augment=augment, batch_size=4), tmp_path)
    halves = gradients(tiny_run.tiny_config(*one, augment=augment, batch_size=2, accumulate=2), tmp_path)
    assert whole.keys() == halves.keys()
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max()) + 1e-8)


def test_step_of_several_batches_takes_the_mean_of_their_gradients(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    unclipped = {"kind": "adam", "learning_rate": 1e-3, "clip_norm": None}
    config = tiny_run.tiny_config(*tiny_set, accumulate=3, optimizer=unclipped)
    found = gradients(config, tmp_path)
    fabric = Fabric(accelerator="cpu")
    fabric.seed_everything(config.seed, verbose=False)
    run = Run(config, tmp_path, fabric)
    run.network.train()
    objective = Objective(run.network, config)
    batches = loaded_batches(run)
    for _ in range(3):
        losses = objective(next(batches), phase=config.phases[0])
        (sum(losses.values()) / 3).backward()
    for name, value in run.network.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-6)


def test_batches_of_a_step_hold_the_samples_of_one_large_batch(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    fabric = Fabric(accelerator="cpu")
    parts = loaded_batches(Run(tiny_run.tiny_config(*tiny_set, accumulate=3), tmp_path, fabric))
    whole = loaded_batches(Run(tiny_run.tiny_config(*tiny_set, batch_size=6), tmp_path, fabric))
    for large in (next(whole), next(whole)):
        assert torch.equal(torch.cat([next(parts).images for _ in range(3)]), large.images)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch):
    """Makes the loss of some calls of the objective NaN, and the statistics of the norms with it."""

    def poison(*calls: int) -> None:
        count, forward = 0, Objective.forward

        def poisoned_forward(self: Objective, batch: Batch, **how: object) -> dict[str, torch.Tensor]:
            nonlocal count
            count += 1
            if count in calls:
                for norm in self.modules():
                    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                        norm.running_mean.fill_(float("nan"))
            factor = float("nan") if count in calls else 1.0
            return {name: factor * value for name, value in forward(self, batch, **how).items()}

        monkeypatch.setattr(Objective, "forward", poisoned_forward)

    return poison


def test_error_of_a_loss_that_is_no_number_names_its_samples_and_photos(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, poisoned
) -> None:
    poisoned(6)  # the second half of step 2, from 0
    config = tiny_run.tiny_config(*tiny_set, accumulate=2)
    run = Run(config, tmp_path, Fabric(accelerator="cpu"))
    names = [batch.names for batch, _ in zip(loaded_batches(run), range(6), strict=False)][5]
    with pytest.raises(NonFiniteLossError) as caught:
        fit(config, tmp_path, accelerator="cpu")
    assert "step 2: the loss is not finite" in str(caught.value)
    assert f"on samples 10 to 11 ({', '.join(names)})" in str(caught.value)
    assert all(name.startswith("tiny/") for name in names)


def test_step_that_is_skipped_leaves_no_trace_in_the_weights(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, poisoned, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(2, 3)
    config = tiny_run.tiny_config(*tiny_set, steps=4, on_nonfinite="skip")
    with caplog.at_level(logging.WARNING, "posesdk_training"):
        path = fit(config, tmp_path, accelerator="cpu")
    skipped = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in skipped] == [
        "step 1 skipped (1 in a row)",
        "step 2 skipped (2 in a row)",
    ]
    weights = load_checkpoint(path).state_dict
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert int(weights["transition_cls.1.num_batches_tracked"]) == 2
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[3] == "" for row in rows[1:]] == [False, True, True, False]


def test_too_many_skipped_steps_in_a_row_end_the_run(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, poisoned
) -> None:
    poisoned(1, 3, 4, 5)
    config = tiny_run.tiny_config(*tiny_set, steps=9, on_nonfinite="skip", max_skips=3)
    with pytest.raises(NonFiniteLossError, match=r"^step 4: .*3 steps in a row"):
        fit(config, tmp_path, accelerator="cpu")


@pytest.mark.parametrize(
    ("fault", "every"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), 1),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] not enough memory: you tried to allocate 17 bytes."), 3),
    ],
    ids=["gpu", "cpu read later"],
)
def test_run_without_memory_says_what_to_lower_and_saves(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault, every: int
) -> None:
    settings = {"steps": 6, "checkpoint_minutes": 60, "log_every": 3, "check_every": every}
    config = tiny_run.tiny_config(*tiny_set, **settings)
    whole = load_checkpoint(fit(config, tmp_path / "whole", accelerator="cpu")).state_dict
    count, forward = 0, Objective.forward

    def failing(self: Objective, batch: Batch, **how: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        losses = forward(self, batch, **how)  # moves the statistics of the norms
        if count == 5:
            raise fault
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", failing)
        with pytest.raises(OutOfMemoryFault) as caught:
            fit(config, tmp_path / "run", accelerator="cpu")
    message = str(caught.value)
    assert "step 4 (phase 0, 2 crops of 64 px) ran out of memory on cpu" in message
    assert "Lower batch_size (and raise accumulate), phases.0.sizes or use precision bf16-mixed" in message
    assert "\n" not in message
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"] == 4
    resumed = load_checkpoint(fit(config, tmp_path / "run", accelerator="cpu")).state_dict
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    ours, theirs = (read_log(tmp_path / name / "log.csv") for name in ("run", "whole"))
    assert ours == theirs


def read_log(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [{key: row[key] for key in row if key != "samples_per_second"} for row in csv.DictReader(file)]


def test_another_fault_of_torch_is_not_taken_for_a_lack_of_memory(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Objective, "forward", failing)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path, accelerator="cpu")


def test_seed_decides_every_weight(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    first, second, other = (
        load_checkpoint(
            fit(tiny_run.tiny_config(*tiny_set, steps=3, seed=seed), tmp_path / name, accelerator="cpu")
        ).state_dict
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    assert all(torch.equal(first[key], value) for key, value in second.items())
    assert not torch.equal(first["final_layer_cls.weight"], other["final_layer_cls.weight"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains_and_resumes_on_a_cpu(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, precision: str
) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=4, precision=precision)
    whole = load_checkpoint(fit(config, tmp_path / "whole", accelerator="cpu")).state_dict
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=2)
    parts = load_checkpoint(fit(config, tmp_path / "parts", accelerator="cpu")).state_dict
    assert all(torch.equal(parts[key], value) for key, value in whole.items())
