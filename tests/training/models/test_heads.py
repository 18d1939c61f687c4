import pytest
import torch
from torch import nn

from posesdk_training.models.heads import head_transition, initialise_for_focal_loss


def test_transition_has_the_published_parameter_count():
    # design: W32's transition_reg, 480 -> 256 without bias, plus batch norm
    assert sum(p.numel() for p in head_transition(480, 256).parameters()) == 123_392


def test_focal_initialisation_starts_from_empty_heatmaps_and_small_offsets():
    torch.manual_seed(0)
    heatmaps, offsets = nn.Conv2d(32, 18, 1), nn.Conv2d(64, 34, 1)
    initialise_for_focal_loss(heatmaps, offsets)
    assert torch.all(heatmaps.bias == -4)
    assert torch.all(offsets.bias == 0)
    assert 0.008 < offsets.weight.std().item() < 0.012


def test_output_convolutions_without_a_bias_are_refused():
    with pytest.raises(ValueError, match="bias"):
        initialise_for_focal_loss(nn.Conv2d(4, 18, 1, bias=False), nn.Conv2d(4, 34, 1))
