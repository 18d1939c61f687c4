"""Steps whose figures are read later, and runs that stop when their time is up."""

import csv
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import ValidationError

from posesdk_training import train
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.train import NonFiniteLossError, fit

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "samples_per_second"} for row in csv.DictReader(file)
        ]


def figures(folder: Path) -> torch.Tensor:
    """One row each, -1 where the log has no figure."""
    return torch.tensor([[float(value or -1) for value in row.values()] for row in rows(folder)])


def test_run_that_reads_later_logs_what_one_that_reads_at_once_does(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    phases = [
        {"until": 0.5, "mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": False},
        {"until": 1.0, "mixture": {"tiny": 1.0}, "sizes": {64: 1.0}},
    ]
    for every in (1, 4):  # at 4, the second reading is over both phases
        settings = {"steps": 10, "log_every": 4, "check_every": every, "accumulate": 2, "phases": phases}
        fit(tiny_run.tiny_config(*tiny_set, **settings), tmp_path / str(every), accelerator="cpu")
    assert [row["step"] for row in rows(tmp_path / "4")] == ["4", "8"]
    torch.testing.assert_close(figures(tmp_path / "4"), figures(tmp_path / "1"), rtol=1e-4, atol=1e-6)
    first, second = (load_checkpoint(tmp_path / name / "last.safetensors").state_dict for name in "14")
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-6)


def test_run_stopped_between_two_readings_goes_on_as_if_it_had_not(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    config = tiny_run.tiny_config(*tiny_set, log_every=3, check_every=3)
    fit(config, tmp_path / "whole", accelerator="cpu")
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=2)
    fit(config, tmp_path / "parts", accelerator="cpu")
    torch.testing.assert_close(figures(tmp_path / "parts"), figures(tmp_path / "whole"), rtol=1e-4, atol=1e-6)


def test_loss_that_is_no_number_is_never_saved_and_its_steps_are_named(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    fit(tiny_run.tiny_config(*tiny_set, steps=2), tmp_path, accelerator="cpu")
    before = (tmp_path / "last.ckpt").read_bytes()
    optimizer = {"kind": "adam", "learning_rate": 1e30, "schedule": "cosine"}
    settings = {"steps": 40, "log_every": 8, "check_every": 8, "optimizer": optimizer}
    with pytest.raises(NonFiniteLossError, match=r"step \d+: .* steps \d+ to 7 were read"):
        fit(tiny_run.tiny_config(*tiny_set, **settings), tmp_path, accelerator="cpu", stop_after=8)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    with pytest.raises(NonFiniteLossError, match="to 4 were read"):  # the end of the run reads too
        fit(tiny_run.tiny_config(*tiny_set, **settings), tmp_path, accelerator="cpu", stop_after=5)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_rows_of_the_log_end_where_figures_are_read(tiny_run: ModuleType, tiny_set: TinySet) -> None:
    with pytest.raises(ValidationError, match="multiple of check_every"):
        tiny_run.tiny_config(*tiny_set, log_every=10, check_every=4)
    with pytest.raises(ValidationError, match="on_nonfinite"):
        tiny_run.tiny_config(*tiny_set, log_every=4, check_every=4, on_nonfinite="skip")


def test_run_whose_time_is_up_saves_and_goes_on(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a step takes half a minute by; five half minutes after the start, the time is up."""
    config = tiny_run.tiny_config(*tiny_set)
    fit(config, tmp_path / "whole", accelerator="cpu")
    monkeypatch.setattr(train, "_taken", slowed(train._taken, now := [0.0]))
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    fit(config, tmp_path / "parts", accelerator="cpu", max_minutes=1.1)
    assert load_checkpoint(tmp_path / "parts" / "last.safetensors").metadata["step"] == "3"
    fit(config, tmp_path / "parts", accelerator="cpu", max_minutes=60)
    assert load_checkpoint(tmp_path / "parts" / "last.safetensors").metadata["step"] == "6"
    torch.testing.assert_close(figures(tmp_path / "parts"), figures(tmp_path / "whole"), rtol=1e-4, atol=1e-6)


def slowed(taken, now):
    def take(*arguments):
        now[0] += 30
        return taken(*arguments)

    return take
