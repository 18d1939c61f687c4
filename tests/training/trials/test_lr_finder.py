"""The learning-rate range test: what it suggests on known curves, and that it trains on the real data."""

import csv
import json
import math
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk_runtimes.errors import DataError
from posesdk_training.program import app
from posesdk_training.trials.lr_finder import RangeTest, range_test, smooth, suggest
from posesdk_training.trials.lr_plot import curve_picture

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

RATES = np.geomspace(1e-6, 1.0, 200)


def curve(*, falls_at: float, rises_at: float | None) -> np.ndarray:
    """A loss that falls from 3 to 1 as a logistic step around one rate and shoots up past another."""
    decades = np.log10(RATES)
    losses = 1 + 2 / (1 + np.exp(4 * (decades - math.log10(falls_at))))
    if rises_at is not None:
        losses += np.exp(np.clip(6 * (decades - math.log10(rises_at)), -50, 5))
    return losses


def test_steepest_descent_is_where_the_curve_falls_fastest() -> None:
    found = suggest(RangeTest(RATES, curve(falls_at=1e-3, rises_at=None), diverged=False))
    assert found.risen is None
    assert found.rate == found.steepest == pytest.approx(1e-3, rel=0.15)


def test_smoothing_does_not_lag_behind_the_rates() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, len(RATES))
    found = suggest(RangeTest(RATES, curve(falls_at=1e-3, rises_at=None) + noise, diverged=False))
    assert found.steepest is not None
    assert abs(math.log10(found.steepest) + 3) < 0.35


def test_suggestion_keeps_a_tenth_of_where_the_loss_has_risen() -> None:
    """The loss passes its first value, 3, where exp(6 (d - log10 2e-3)) = 2: at 2e-3 * 10^(ln 2 / 6)."""
    found = suggest(RangeTest(RATES, curve(falls_at=8e-4, rises_at=2e-3 * 10 ** (-math.log(2) / 6)), diverged=True))
    assert found.risen is not None
    assert found.risen == pytest.approx(2e-3, rel=0.5)
    assert found.rate == pytest.approx(found.risen / 10)


def test_loss_that_only_rises_has_no_steepest_descent() -> None:
    found = suggest(RangeTest(RATES, 1 + np.linspace(0, 5, 200), diverged=True))
    assert found.steepest is None
    assert found.rate is not None


def test_scatter_of_a_trained_models_losses_is_no_descent() -> None:
    scatter = np.random.default_rng(1).normal(0, 0.5, len(RATES))
    rise = np.exp(np.clip(6 * (np.log10(RATES) + 2), -50, 3))
    found = suggest(RangeTest(RATES, 5 + scatter + rise, diverged=True))
    assert found.steepest is None
    assert found.rate == pytest.approx(1e-3, rel=0.6)


def test_smoothing_keeps_a_constant_and_averages_noise() -> None:
    assert np.allclose(smooth(np.full(50, 2.5)), 2.5)
    noisy = np.random.default_rng(0).normal(0, 1, 400)
    assert smooth(noisy).std() < 0.4 * noisy.std()


def test_test_that_ends_at_once_is_an_error() -> None:
    with pytest.raises(DataError, match="lower rate"):
        suggest(RangeTest(RATES[:3], np.ones(3), diverged=True))


def test_rates_rise_evenly_and_the_test_ends_when_the_loss_diverges(tiny_run: ModuleType, tiny_set: TinySet) -> None:
    config = tiny_run.tiny_config(*tiny_set)
    seen: list[int] = []
    test = range_test(
        config, steps=40, lowest=1e-4, highest=1e6, accelerator="cpu", on_step=lambda step, _: seen.append(step)
    )
    assert test.diverged
    assert len(test.losses) == len(test.rates) < 40
    assert seen == list(range(1, len(test.losses) + 1))
    assert np.allclose(np.diff(np.log10(test.rates)), 10 / 39)


def test_first_losses_are_those_of_training(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    """At a rate near zero the weights stay, and every loss is that of the run's own first samples."""
    from posesdk_training.train import fit

    optimizer = {"kind": "adam", "learning_rate": 1e-30, "schedule": "multistep"}
    config = tiny_run.tiny_config(*tiny_set, steps=20, optimizer=optimizer)
    fit(config.model_copy(update={"steps": 2}), tmp_path, accelerator="cpu")
    with (tmp_path / "log.csv").open() as file:
        expected = [
            sum(float(row[name]) for name in ("heatmap", "offset", "oks", "refined")) for row in csv.DictReader(file)
        ]
    test = range_test(config, steps=20, lowest=1e-30, highest=1e-29, accelerator="cpu")
    assert np.allclose(test.losses[:2], expected, rtol=1e-4)


def test_picture_marks_the_suggested_rate() -> None:
    test = RangeTest(RATES, curve(falls_at=1e-3, rises_at=1e-1), diverged=True)
    found = suggest(test)
    picture = curve_picture(test, found)
    assert found.rate is not None
    column = round(56 + (math.log10(found.rate) + 6) / 6 * (800 - 112))
    marked = (picture[100:400] == (40, 40, 210)).all(2).sum(0)
    assert int(marked.argmax()) == column


def test_command_prints_a_rate_and_leaves_no_run_folder(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = json.loads(tiny_run.tiny_config(*tiny_set).model_dump_json())
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    command = ["find-lr", "config.yaml", "--steps", "24", "--from", "1e-4", "--to", "1", "--accelerator", "cpu"]
    done = CliRunner().invoke(app, [*command, "--csv", "curve.csv", "--plot", "curve.png"])
    assert done.exit_code == 0, done.output
    assert "optimizer.learning_rate=" in done.output
    with (tmp_path / "curve.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates[0] == pytest.approx(1e-4)
    picture = cv2.imread("curve.png")
    assert picture is not None
    assert picture.shape == (480, 800, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "curve.csv", "curve.png"]


def test_plot_that_is_no_picture_is_refused_before_the_test(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["find-lr", "logocap-nano", "--plot", str(tmp_path / "c.txt")])
    assert done.exit_code == 1, done.output
    assert "c.txt: it is to be a picture; name it .png or .jpg" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "fault"),
    [(["--from", "1", "--to", "0.1"], "must rise"), (["--phase", "7"], "phases 0 to 0")],
)
def test_range_that_is_none_is_a_usage_error(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, options: list[str], fault: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(tiny_run.tiny_config(*tiny_set).model_dump_json())
    done = CliRunner().invoke(app, ["find-lr", str(path), *options])
    assert done.exit_code == 2
    assert fault in done.output
