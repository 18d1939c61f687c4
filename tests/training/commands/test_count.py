"""What models cost is counted, and is what the papers and the design say."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from posesdk.spec import HeadSpec, HRNetSpec
from posesdk_training.models import build
from posesdk_training.models.adaptive_head import AdaptiveOffsets
from posesdk_training.models.build import preset
from posesdk_training.models.cost import ModelCost, model_cost, multiplications
from posesdk_training.program import app

STEMS = 2 * (3 * 64 * 9 + 2 * 64) + 3 * (64 * 64 * 9 + 2 * 64)
"""Parameters of the 8x and 2x stems at paper size: convolutions and norms, by hand."""


@pytest.fixture(scope="module", params=["dac-w32", "dac-w48"])
def paper_size(request) -> tuple[str, ModelCost]:
    return request.param, model_cost(preset(request.param))


def test_paper_size_models_have_the_papers_parameters(paper_size):
    name, cost = paper_size
    assert round(cost.parameters / 1e6, 3) == {"dac-w32": 43.517, "dac-w48": 79.825}[name]  # paper: 43.5 and 79.8
    assert cost.training_parameters - cost.parameters == STEMS


def test_paper_size_models_take_the_papers_multiplications(paper_size):
    name, cost = paper_size
    base, total, size = {"dac-w32": (45.385, 46.4, 512), "dac-w48": (141.527, 142.7, 640)}[name]
    assert cost.input_size == (size, size)
    assert 0 < cost.trunk_gmac - base < 0.02  # DEKR, and its output layers wider by a center
    assert cost.image_gmac == pytest.approx(total, abs=0.05)


def test_the_tower_of_deformable_convolutions_is_counted_by_hand():
    keypoints, channels, cells = 17, 15, 8 * 8
    with torch.device("meta"):
        counted = multiplications(AdaptiveOffsets(keypoints, 2, channels), torch.empty(1, keypoints * channels, 8, 8))
    block = 9 * channels * (6 + channels)  # six affine values, and the deformable convolution
    assert counted == cells * keypoints * (2 * block + channels * 4)


@pytest.mark.parametrize("size", ["nano", "small"])
def test_both_poses_of_a_person_cost_less_than_the_adaptation_of_one(size):
    dac, relative = model_cost(preset(f"dac-{size}")), model_cost(preset(f"logocap-{size}"))
    assert 0 < 2 * dac.pose_gmac < relative.pose_gmac
    assert dac.trunk_gmac == pytest.approx(relative.trunk_gmac, rel=0.02)


def test_every_head_of_an_edge_model_is_plain():
    for name in ("dac-nano", "dac-small"):
        heads = preset(name).heads
        assert heads == preset(name.replace("dac", "logocap")).heads
        assert (heads.offsets, heads.heatmap_blocks) == (HeadSpec().offsets, 0) == ("plain", 0)


def test_dual_centers_with_logocaps_adaptation_are_one_switch():
    nano, dual = preset("logocap-nano"), preset("logocap-nano-dual")
    assert dual.model_copy(update={"name": nano.name, "centers": "single"}) == nano
    wider = (nano.heads.heatmap_channels + 1) + 34 * (nano.heads.offset_channels + 1)
    assert model_cost(dual).parameters - model_cost(nano).parameters == wider


def test_multiplications_are_those_of_convolutions_and_linear_layers():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 5 * 6, 7))
    assert multiplications(module, torch.zeros(1, 3, 5, 6)) == 3 * 4 * 9 * 5 * 6 + 4 * 5 * 6 * 7
    assert module.training


def test_the_command_prints_the_models_that_are_named():
    result = CliRunner().invoke(app, ["count", "dac-w32", "logocap-nano"])
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    figures = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(figures) == ["dac-w32", "logocap-nano"]
    assert figures["dac-w32"][:2] == ["512x512", "43.517"]
    assert figures["dac-w32"][-1].startswith("46.4")
    assert all(title in header for title in ("parameters", "GMAC/image", "MMAC/pose"))


def test_the_command_prints_all_models_and_refuses_others(monkeypatch):
    """Of the edge models alone, for the large ones take seconds each."""
    edge = [name for name in build.PRESETS if not isinstance(preset(name).backbone, HRNetSpec)]
    assert len(edge) > 3
    monkeypatch.setattr(build, "PRESETS", {name: build.PRESETS[name] for name in edge})
    listed = CliRunner().invoke(app, ["count"]).stdout.splitlines()[1:]
    assert [line.split()[0] for line in listed] == edge
    result = CliRunner().invoke(app, ["count", "dac-pico"])
    assert result.exit_code == 2
    assert "dac-nano" in result.stderr
