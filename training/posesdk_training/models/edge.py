"""Edge backbone: a dense residual network with a feature pyramid back to stride 4.

Dense 3x3 convolutions on widths that are multiples of 16 quantise and run better on small devices than depthwise
ones of half the work; upsampling is bilinear, which every mobile runtime delegates.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.spec import EdgeBackboneSpec

__all__ = ["EdgeBackbone"]


def _conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or a 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(inputs, outputs, stride=stride), nn.ReLU(inplace=True), *_conv_norm(outputs, outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(*_conv_norm(inputs, outputs, kernel=1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = _ResidualBlock(inputs, outputs, 2)
    return nn.Sequential(first, *(_ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class EdgeBackbone(nn.Module):
    """(B, 3, H, W), sides multiples of 32 -> (B, neck, H/4, W/4)."""

    def __init__(self, spec: EdgeBackboneSpec) -> None:
        super().__init__()
        self.out_channels = spec.neck
        self.stem = nn.Sequential(*_conv_norm(3, spec.stem, stride=2), nn.ReLU(inplace=True))
        widths = (spec.stem, *spec.channels)
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, blocks)
            for inputs, outputs, blocks in zip(widths[:-1], widths[1:], spec.blocks, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, spec.neck, 1) for channels in spec.channels)
        self.merges = nn.ModuleList(
            nn.Sequential(*_conv_norm(spec.neck, spec.neck), nn.ReLU(inplace=True)) for _ in spec.channels[:-1]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features at stride 4 of (B, 3, H, W) images."""
        x = self.stem(images)
        levels: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        top: Tensor = levels.pop()
        for level, merge in zip(reversed(levels), reversed(self.merges), strict=True):
            top = merge(level + F.interpolate(top, scale_factor=2.0, mode="bilinear", align_corners=False))
        return top
