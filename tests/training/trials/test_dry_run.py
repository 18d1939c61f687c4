"""What a dry run says, against what can be counted by hand."""

import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from torch import nn
from typer.testing import CliRunner

from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.resident.pack import write_packs
from posesdk_training.models.build import build_model
from posesdk_training.models.cost import trunk_gmac
from posesdk_training.program import app
from posesdk_training.trials.dry_run import dry_run

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")

PHASES = [
    {"until": 0.25, "mixture": {"tiny": 2.0}, "sizes": {64: 3.0, 96: 1.0}, "adaptation": False},
    {"until": 1.0, "mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "learning_rate": 0.001},
]


def test_dry_run_knows_data_phases_and_model(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=1000, phases=PHASES, accumulate=2)
    parts: list[int] = []
    found = dry_run(config, tmp_path / "run", accelerator="cpu", on_part=parts.append)
    assert [(entry.images, entry.labelled) for entry in found.sets] == [(6, 6)]
    assert [(phase.start, phase.end) for phase in found.phases] == [(0, 250), (250, 1000)]
    assert [phase.mixture for phase in found.phases] == [{"tiny": 1.0}, {"tiny": 1.0}]
    first, second = found.phases
    assert [(size.side, size.share) for size in first.sizes] == [(64, 0.75), (96, 0.25)]
    assert first.rates[0] == pytest.approx(0.003)  # of the whole run's cosine
    assert second.rates[0] == pytest.approx(0.001)  # of its own
    assert second.rates[2] < 0.0001
    model = build_model(config.model)
    assert found.parameters == sum(value.numel() for value in model.parameters())
    assert found.samples_per_step == 4
    seconds = sum(size.share * (size.step_seconds + size.load_seconds) for size in first.sizes)
    assert first.hours == pytest.approx(250 * seconds / 3600)
    assert found.hours == first.hours + second.hours > 0
    assert min(phase.peak_memory for phase in found.phases) > 50e6  # torch alone takes more
    assert parts == [1, 2, 3, 4]
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_dry_run_of_packed_photos_needs_no_others(tiny_run: ModuleType, tmp_path: Path) -> None:
    annotations, images = tiny_run.write_tiny_set(tmp_path / "tiny", images=2)
    config = tiny_run.tiny_config(annotations, images, steps=10)
    (entry,) = config.data.sets
    pack = write_packs([load_keypoint_set(entry, config.model.skeleton)], tmp_path / "tiny.pack", long_side=96)
    shutil.rmtree(tmp_path / "tiny")
    data = config.data.model_copy(update={"resident": True, "pack": tuple(pack), "workers": 8})
    found = dry_run(config.model_copy(update={"data": data}), tmp_path / "run", accelerator="cpu")
    assert found.sets == ()
    ((size,),) = (phase.sizes for phase in found.phases)
    assert found.hours == pytest.approx(10 * (size.step_seconds + size.load_seconds) / 3600)  # one after the other


def test_multiplications_are_those_of_the_convolutions(tiny_run: ModuleType) -> None:
    model = build_model(tiny_run.TINY_SPEC)
    total = 0

    def count(module: nn.Conv2d, _: object, output) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Conv2d)]
    measured = trunk_gmac(model)
    for hook in hooks:
        hook.remove()
    assert measured == pytest.approx(total / 1e9, rel=1e-6)


def test_dry_run_of_the_command_writes_nothing(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=3)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    before = sorted(os.walk(tmp_path))
    result = CliRunner().invoke(
        app, ["fit", str(path), "--dry-run", "--accelerator", "cpu", "--run", str(tmp_path / "run")]
    )
    assert result.exit_code == 0, result.output
    assert sorted(os.walk(tmp_path)) == before
    assert "64 px" in result.stdout
    assert f"would be written to {tmp_path}/run" in result.stdout


def test_dry_run_says_what_is_trained_in_which_branches(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    branches = [
        {"name": "8x", "area_range": [256, 128**2]},
        "4x",
        {"name": "2x", "stem": "4x", "cells": "own", "zoom": 0.5, "weight": 0.25},
    ]
    phases = [PHASES[0], {**PHASES[1], "dense": False}]
    config = tiny_run.tiny_config(*tiny_set, steps=100, phases=phases, branches=branches)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    places = ("--accelerator", "cpu", "--run", str(tmp_path / "run"))
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "tiny.yaml"), "--dry-run", *places])
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "8x 2 x 8x 1 x above 16 up to 128 px 1 x 0.5" in lines
    assert "4x 1 x 4x 1 x all 1 x 1" in lines
    assert "2x 0.5 x 4x 0.5 x all 0.5 x 0.25" in lines
    first, second = (line for line in lines if line.startswith(("phase 0,", "phase 1,")))
    assert "dense net trained in 8x, 4x, 2x; adaptation off" in first
    assert "dense net at rest; adaptation on" in second
    model = build_model(config.model)
    stem = build_model(config.model, ["8x"]).backbone.stems
    parameters, more = (sum(value.numel() for value in module.parameters()) for module in (model, stem))
    assert f"{parameters:,} parameters and {more:,} of stems for training alone" in result.stdout


def test_dry_run_of_one_branch_has_no_list_of_them(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    config = tiny_run.tiny_config(*tiny_set, steps=3)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    places = ("--accelerator", "cpu", "--run", str(tmp_path / "run"))
    text = CliRunner().invoke(app, ["fit", str(tmp_path / "tiny.yaml"), "--dry-run", *places]).stdout
    assert "dense net trained in 4x; adaptation on" in text
    assert "field of view" not in text
    assert "stems" not in text
