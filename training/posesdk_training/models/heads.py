"""Builders of the dense heads: a 1x1 convolution, then the output layer.

The output layer is one 1x1 convolution (LOGO-CAP), or that behind residual blocks and adaptive towers (DEKR, Geng et
al., CVPR 2021). Their places in the models carry LOGO-CAP's published names, so that its weights load without a key
map.
"""

from torch import nn

from posesdk.spec import ModelSpec
from posesdk_training.models.adaptive_head import CONV_STD, AdaptiveOffsets
from posesdk_training.models.hrnet import BasicBlock

__all__ = [
    "head_transition",
    "heatmap_layers",
    "initialise_as_published",
    "initialise_for_focal_loss",
    "offset_layers",
    "output_layer",
]

RARE_LOGIT = -4.0
"""Heatmap bias before training: sigmoid(-4) = 0.018, so that the many empty cells do not flood the first steps."""
OFFSET_STD = 0.01


def head_transition(features: int, channels: int) -> nn.Sequential:
    """1x1 convolution without bias, batch norm, ReLU: (B, features, h, w) -> (B, channels, h, w)."""
    return nn.Sequential(nn.Conv2d(features, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def heatmap_layers(features: int, spec: ModelSpec) -> tuple[nn.Sequential, nn.Module]:
    """Transition and output layer of the heatmaps: (B, features, h, w) -> (B, K+Q, h, w)."""
    channels, blocks = spec.heads.heatmap_channels, spec.heads.heatmap_blocks
    transition = head_transition(features, channels)  # the order of layers is that of their first random weights
    output: nn.Module = nn.Conv2d(channels, spec.keypoint_count + spec.center_count, 1)
    if blocks:
        output = nn.Sequential(*(BasicBlock(channels) for _ in range(blocks)), output)
    return transition, output


def offset_layers(features: int, spec: ModelSpec) -> tuple[nn.Sequential, nn.Module]:
    """Transition and output layer of the offsets: (B, features, h, w) -> (B, 2KQ, h, w), center by center."""
    heads, keypoints, centers = spec.heads, spec.keypoint_count, spec.center_count
    if heads.offsets == "plain":
        transition = head_transition(features, heads.offset_channels)
        return transition, nn.Conv2d(heads.offset_channels, 2 * keypoints * centers, 1)
    towers = AdaptiveOffsets(keypoints, centers, heads.adaptive_channels)
    return head_transition(features, keypoints * heads.adaptive_channels), towers


def output_layer(layers: nn.Module) -> nn.Conv2d:
    """The last convolution of a head's output layer."""
    convolutions = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]
    return convolutions[-1]


def initialise_as_published(layers: nn.Module) -> None:
    """DEKR's start of a head: small convolutions, biases of 0. Adaptive towers start on their own."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=CONV_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_for_focal_loss(heatmaps: nn.Conv2d, offsets: nn.Conv2d) -> None:
    """Start the output convolutions at empty heatmaps and near-zero offsets, for training from scratch."""
    for layer in (heatmaps, offsets):
        if layer.bias is None:
            raise ValueError("the output convolutions of the dense heads need a bias")
    nn.init.constant_(heatmaps.bias, RARE_LOGIT)  # type: ignore[arg-type]
    nn.init.normal_(offsets.weight, std=OFFSET_STD)
    nn.init.zeros_(offsets.bias)  # type: ignore[arg-type]
