"""The training loop on a tiny set and a tiny model."""

import csv
import logging
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posesdk_runtimes.errors import CheckpointError, DataError, DeviceUnavailableError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import build_model
from posesdk_training.run import objective
from posesdk_training.run.state import Run
from posesdk_training.train import NonFiniteLossError, fit

TinySet = tuple[Path, Path]
LOSSES = ("heatmap", "offset", "oks", "refined")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")


def losses(folder: Path) -> list[tuple[float, ...]]:
    with (folder / "log.csv").open() as file:
        return [tuple(float(row[name]) for name in LOSSES) for row in csv.DictReader(file)]


def test_training_lowers_the_loss(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=60, batch_size=4)
    fit(config, tmp_path, accelerator="cpu")
    rows = losses(tmp_path)
    assert len(rows) == 60
    first, last = (sum(sum(row[:2]) for row in part) for part in (rows[:10], rows[-10:]))
    assert last < 0.8 * first


def test_resumed_run_has_the_losses_of_an_uninterrupted_one(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    config = tiny_run.tiny_config(*tiny_set)
    fit(config, tmp_path / "whole", accelerator="cpu")
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=3)
    assert len(losses(tmp_path / "parts")) == 3
    fit(config, tmp_path / "parts", accelerator="cpu")
    assert torch.allclose(
        torch.tensor(losses(tmp_path / "whole")), torch.tensor(losses(tmp_path / "parts")), rtol=1e-4, atol=1e-7
    )
    whole, parts = (load_checkpoint(tmp_path / name / "last.safetensors").state_dict for name in ("whole", "parts"))
    assert all(torch.allclose(whole[key].float(), parts[key].float(), rtol=1e-3, atol=1e-5) for key in whole)


def test_run_that_was_killed_logs_what_an_uninterrupted_one_does(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    """Killed at step 6 after its checkpoint of step 2, with half a row on the disk."""
    config = tiny_run.tiny_config(*tiny_set, log_every=2)
    fit(config, tmp_path / "whole", accelerator="cpu")
    folder = tmp_path / "killed"
    fit(config, folder, accelerator="cpu", stop_after=2)
    checkpoint = (folder / "last.ckpt").read_bytes()
    fit(config, folder, accelerator="cpu")
    (folder / "last.ckpt").write_bytes(checkpoint)
    with (folder / "log.csv").open("a") as file:
        file.write("1")  # of 12
    fit(config, folder, accelerator="cpu")
    assert torch.allclose(torch.tensor(losses(folder)), torch.tensor(losses(tmp_path / "whole")), rtol=1e-4)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/heatmap")] == [2, 4, 6]


def test_checkpoint_between_two_rows_of_the_log_keeps_what_waits_for_the_next_one(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    config = tiny_run.tiny_config(*tiny_set, log_every=4, steps=8)
    fit(config, tmp_path / "whole", accelerator="cpu")
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=3)
    fit(config, tmp_path / "parts", accelerator="cpu")
    assert len(losses(tmp_path / "whole")) == 2
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_loader_processes_do_not_change_the_losses(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=3)
    data = config.data.model_copy(update={"workers": 2})
    fit(config, tmp_path / "none", accelerator="cpu")
    fit(config.model_copy(update={"data": data}), tmp_path / "two", accelerator="cpu")
    alone, two = (torch.tensor(losses(tmp_path / name)) for name in ("none", "two"))
    assert torch.allclose(alone, two, rtol=1e-4)


def test_phase_without_adaptation_trains_the_dense_maps_alone(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    phases = [
        {"until": 0.5, "mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": False},
        {"until": 1.0, "mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": True},
    ]
    config = tiny_run.tiny_config(*tiny_set, steps=4, phases=phases)
    fit(config, tmp_path, accelerator="cpu")
    with (tmp_path / "log.csv").open() as file:
        refined = [row["refined"] for row in csv.DictReader(file)]
    assert refined[:2] == ["", ""]
    assert all(refined[2:])


def test_weights_carry_their_spec_and_how_long_they_were_trained(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=2, weights_licence="Apache-2.0")
    checkpoint = load_checkpoint(fit(config, tmp_path, accelerator="cpu"))
    assert checkpoint.metadata["weights_licence"] == "Apache-2.0"
    assert checkpoint.metadata["training_data"] == "tiny"
    assert checkpoint.spec == config.model
    assert checkpoint.metadata["step"] == "2"
    assert checkpoint.metadata["samples"] == "4"


def test_infinite_loss_ends_the_run_with_advice_and_keeps_the_checkpoint(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    fit(tiny_run.tiny_config(*tiny_set, steps=2), tmp_path, accelerator="cpu")
    before = (tmp_path / "last.ckpt").read_bytes()
    optimizer = {"kind": "adam", "learning_rate": 1e30, "schedule": "cosine"}
    with pytest.raises(NonFiniteLossError, match="learning_rate"):
        fit(tiny_run.tiny_config(*tiny_set, steps=40, optimizer=optimizer), tmp_path, accelerator="cpu")
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_gradient_that_is_no_number_ends_the_run_before_the_weights_take_it(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square root of a zero loss has no finite gradient."""
    monkeypatch.setattr(objective, "dense_losses", lambda maps, *_, **__: {"heatmap": (0 * maps.heatmaps).sum().sqrt()})
    monkeypatch.setattr(objective, "adaptation_losses", lambda *_: {})
    with pytest.raises(NonFiniteLossError, match="gradient is not finite"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path, accelerator="cpu")
    assert not (tmp_path / "last.ckpt").exists()


def test_fault_of_a_loader_process_is_one_line(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(tiny_set[0], tmp_path)
    data = config.data.model_copy(update={"workers": 1})
    with pytest.raises(DataError) as caught:
        fit(config.model_copy(update={"data": data}), tmp_path / "run", accelerator="cpu")
    assert str(caught.value).startswith("20 images in a row could not be read")
    assert "\n" not in str(caught.value)


def test_loss_scale_of_half_precision_is_resumed(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set)
    scales = []
    for first in (8.0, 1024.0):
        scaler = torch.amp.GradScaler("cpu", init_scale=first)
        run = Run(config, tmp_path, Fabric(plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler)))
        run.resume()
        loss = run.module.model.final_layer_cls.weight.sum()
        run.fabric.backward(loss)  # fills in the scale
        scales.append(scaler.get_scale())
        run.save()
    assert scales == [8.0, 8.0]


def test_device_that_is_not_there_is_named(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(DeviceUnavailableError, match="'mps'"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path / "run", accelerator="mps")
    assert not (tmp_path / "run").exists()


def test_run_folder_that_cannot_be_made_is_named(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"run folder .*file/run"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path / "file" / "run", accelerator="cpu")


def test_broken_state_is_refused_by_name(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path, accelerator="cpu")


def test_settings_that_changed_since_the_checkpoint_are_named(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tiny_run.tiny_config(*tiny_set, steps=1), tmp_path, accelerator="cpu")
    with caplog.at_level(logging.WARNING, "posesdk_training"):
        fit(tiny_run.tiny_config(*tiny_set, steps=2, ema_decay=0.5), tmp_path, accelerator="cpu")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"the run in {tmp_path} goes on with other settings of ema_decay, steps"]


def test_log_of_an_older_run_keeps_its_columns(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=2)
    fit(config, tmp_path, accelerator="cpu", stop_after=1)
    (tmp_path / "log.csv").write_text("step,heatmap\n1,0.5\n")
    fit(config, tmp_path, accelerator="cpu")
    header, first, second = (tmp_path / "log.csv").read_text().splitlines()
    assert (header, first) == ("step,heatmap", "1,0.5")
    step, loss = second.split(",")
    assert step == "2"
    assert float(loss) > 0


def test_run_folder_that_cannot_be_written_is_named(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(DataError, match="cannot write to the run folder"):
        fit(tiny_run.tiny_config(*tiny_set), tmp_path, accelerator="cpu")


def test_state_of_another_model_is_refused(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=1)
    fit(config, tmp_path, accelerator="cpu")
    other = config.model.model_copy(update={"name": "other"})
    with pytest.raises(CheckpointError, match="another model"):
        fit(config.model_copy(update={"model": other}), tmp_path, accelerator="cpu")


def test_weights_can_start_a_run_of_another_size(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=1)
    first = fit(config, tmp_path / "first", accelerator="cpu")
    optimizer = config.optimizer.model_copy(update={"learning_rate": 1e-12})
    second = fit(
        config.model_copy(update={"init_from": first, "optimizer": optimizer, "ema_decay": 0.0}),
        tmp_path / "second",
        accelerator="cpu",
    )
    start, end = (load_checkpoint(path).state_dict["final_layer_cls.weight"] for path in (first, second))
    assert start.shape == end.shape
    assert not torch.equal(start, torch.zeros_like(start))


def test_run_that_goes_on_needs_no_first_weights_and_clears_up_after_a_kill(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=1)
    first = fit(config, tmp_path / "first", accelerator="cpu")
    config = config.model_copy(update={"init_from": first})
    fit(config, tmp_path / "second", accelerator="cpu")
    first.unlink()
    cut_off = tmp_path / "second" / ".last.safetensors.abc123.tmp"
    cut_off.touch()
    fit(config, tmp_path / "second", accelerator="cpu")
    assert not cut_off.exists()


def test_backbone_of_another_project_can_start_a_run(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    """Published ImageNet weights: no prefix, a classifier that the model has no use for."""
    config = tiny_run.tiny_config(*tiny_set, init_from=tmp_path / "imagenet.pth")
    backbone = {
        key: torch.full_like(value, 2) for key, value in build_model(config.model).backbone.state_dict().items()
    }
    torch.save(backbone | {"classifier.weight": torch.zeros(3)}, tmp_path / "imagenet.pth")
    network = Run(config, tmp_path, Fabric(accelerator="cpu")).network
    assert all(bool((value == 2).all()) for value in network.backbone.state_dict().values())
    assert not bool((network.final_layer_cls.weight == 2).any())


def test_run_ends_with_the_number_of_photos_that_it_skipped(tiny_run, tmp_path, caplog):
    annotations, images = tiny_run.write_tiny_set(tmp_path / "set")
    for name in ("0.png", "1.png"):
        (images / name).write_bytes(b"no picture")
    fit(tiny_run.tiny_config(annotations, images, steps=6), tmp_path / "run", accelerator="cpu")  # two epochs
    assert caplog.messages[-1].startswith("2 images or shards could not be read")
