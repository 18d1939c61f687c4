"""Edge backbone: a dense residual network with a feature pyramid back to stride 4.

Dense 3x3 convolutions on widths that are multiples of 16 quantise and run better on small devices than depthwise
ones of half the work; upsampling is bilinear, which every mobile runtime delegates.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.spec import EdgeBackboneSpec
from posesdk_training.models.stems import DEPLOYED, Branch, Layer, start_stems, training_stems

__all__ = ["EdgeBackbone"]

STEM_STRIDES: Mapping[Branch, tuple[int, ...]] = {"8x": (2, 2), "2x": (1,)}
"""Of the layers of the stems that are not deployed; the first stage halves once more."""


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
    """(B, 3, H, W), sides multiples of 32 -> (B, neck, H/4, W/4).

    With the stems of the `branches` that it is trained with; those take images twice as large, or half.
    """

    def __init__(self, spec: EdgeBackboneSpec, branches: Sequence[Branch] = ()) -> None:
        super().__init__()
        self.out_channels = spec.neck
        self.level_channels = (spec.neck,) * len(spec.channels)
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
        self.stems = training_stems(branches, STEM_STRIDES, spec.stem)
        self.start_stems()

    def start_stems(self) -> None:
        """Starts the stems that are not deployed from the one that is, say after that was loaded."""
        start_stems(self.stems, [self.first_layer])

    @property
    def first_layer(self) -> Layer:
        """What sees the image."""
        convolution, norm = self.stem[0], self.stem[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return convolution, norm

    def forward(self, images: Tensor, branch: Branch = DEPLOYED) -> Tensor:
        """Features at stride 4 of (B, 3, H, W) images."""
        return self.merge(self.levels(images, branch))

    def levels(self, images: Tensor, branch: Branch = DEPLOYED) -> tuple[Tensor, ...]:
        """The pyramid's four maps (B, neck, h/2^r, w/2^r), finest first; h is H/4 with the deployed stem."""
        x = self.stem(images) if branch == DEPLOYED else self.stems[branch](images)
        laterals: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            laterals.append(lateral(x))
        levels = [laterals.pop()]
        for level, merge in zip(reversed(laterals), reversed(self.merges), strict=True):
            levels.append(
                merge(level + F.interpolate(levels[-1], scale_factor=2.0, mode="bilinear", align_corners=False))
            )
        return tuple(reversed(levels))

    @staticmethod
    def merge(levels: Sequence[Tensor]) -> Tensor:
        """What the dense heads read: the finest map."""
        return levels[0]
