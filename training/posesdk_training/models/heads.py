"""Builders of LOGO-CAP's dense heads: each is one 1x1 convolution and one 1x1 output convolution.

Their places in `LogoCap` carry the published names, so that published weights load without a key map.
"""

from torch import nn

__all__ = ["head_transition", "initialise_for_focal_loss"]

RARE_LOGIT = -4.0
"""Heatmap bias before training: sigmoid(-4) = 0.018, so that the many empty cells do not flood the first steps."""
OFFSET_STD = 0.01


def head_transition(features: int, channels: int) -> nn.Sequential:
    """1x1 convolution without bias, batch norm, ReLU: (B, features, h, w) -> (B, channels, h, w)."""
    return nn.Sequential(nn.Conv2d(features, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def initialise_for_focal_loss(heatmaps: nn.Conv2d, offsets: nn.Conv2d) -> None:
    """Start the output convolutions at empty heatmaps and near-zero offsets, for training from scratch."""
    for layer in (heatmaps, offsets):
        if layer.bias is None:
            raise ValueError("the output convolutions of the dense heads need a bias")
    nn.init.constant_(heatmaps.bias, RARE_LOGIT)  # type: ignore[arg-type]
    nn.init.normal_(offsets.weight, std=OFFSET_STD)
    nn.init.zeros_(offsets.bias)  # type: ignore[arg-type]
