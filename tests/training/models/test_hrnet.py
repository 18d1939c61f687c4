import ast
from pathlib import Path

import pytest
import torch

from posesdk.spec import HRNetSpec
from posesdk_training.models.build import build_model, preset
from posesdk_training.models.hrnet import HRNet

TINY = HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1))


def published_layout(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    rows = [line.split("\t") for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {key: (ast.literal_eval(shape), dtype) for key, shape, dtype in rows}


@pytest.mark.parametrize(
    ("name", "parameters", "backbone"),
    [("logocap-w32", 35_991_429, 29_305_536), ("logocap-w48", 72_107_333, 65_325_120)],
)
def test_parameter_counts_are_the_published_ones(name, parameters, backbone):
    with torch.device("meta"):
        model = build_model(preset(name))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.joints_mlp.parameters()) == 6_506_897


@pytest.mark.parametrize("width", ["w32", "w48"])
def test_state_dict_has_the_published_keys_and_shapes(shared, width):
    expected = published_layout(shared("reference", "logocap", f"keys_{width}.txt"))
    with torch.device("meta"):
        model = build_model(preset(f"logocap-{width}"))
    found = {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in model.state_dict().items()}
    assert found == expected


def test_all_four_scales_reach_the_output():
    torch.manual_seed(0)
    model = HRNet(TINY).eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, 64, 96))
    assert features.shape == (2, 60, 16, 24)
    assert all(part.abs().max() > 0 for part in features.split([4, 8, 16, 32], dim=1))


def test_every_parameter_receives_a_gradient():
    torch.manual_seed(0)
    model = HRNet(TINY)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
