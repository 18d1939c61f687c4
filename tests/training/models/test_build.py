import pytest
import torch
from torch import nn

from posesdk.spec import ModelSpec
from posesdk_training.models.build import PRESETS, build_model, preset


def macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of a module's convolutions for one sample, counted on the meta device."""
    total = 0

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight[0].numel() * output[0].numel()

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        module.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    return total


def trunk_and_person_macs(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """Of the trunk, and of one person: message passing and dynamic convolution of the K windows."""
    with torch.device("meta"):
        model = build_model(spec)
        n, channels = spec.adaptation.local_size, spec.keypoint_count * spec.heads.embedding
        trunk = macs(model, torch.empty(1, 3, height, width))
        convolution = spec.keypoint_count * (spec.adaptation.global_size * n) ** 2
        return trunk, macs(model.joints_mlp, torch.empty(1, channels, n, n)) + convolution


def test_nano_stays_inside_its_budget():
    spec = preset("logocap-nano")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_model(spec).parameters())
    trunk, person = trunk_and_person_macs(spec, 256, 320)
    assert parameters <= 2_000_000
    assert 0.5e9 < trunk < 0.62e9
    assert person <= 0.05 * trunk


def test_small_is_four_times_nano_and_a_person_costs_little():
    nano, _ = trunk_and_person_macs(preset("logocap-nano"), 256, 320)
    small, person = trunk_and_person_macs(preset("logocap-small"), 256, 320)
    assert 3.5 < small / nano < 4.5
    assert person <= 0.05 * small


def test_every_preset_is_found_by_its_own_name():
    assert {preset(name).name for name in PRESETS} == set(PRESETS)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="logocap-nano"):
        preset("logocap-pico")
