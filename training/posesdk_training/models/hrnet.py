"""HRNet, pose variant, with all scales kept after the last stage (arXiv 1902.09212; widths of arXiv 2109.03622).

Attribute names are the keys of published checkpoints.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.spec import HRNetSpec
from posesdk_training.models.stems import DEPLOYED, Branch, Layer, start_stems, training_stems

__all__ = ["BasicBlock", "HRNet"]

STEM_CHANNELS = 64
"""Fixed in every published HRNet, whatever its width."""
BOTTLENECK_EXPANSION = 4
STEM_STRIDES: Mapping[Branch, tuple[int, ...]] = {"8x": (2, 2, 2), "2x": (2, 1)}
"""Of the layers of the stems that are not deployed (DAC, Fig. 2)."""
LAYER1_BLOCKS = 4
CONV_STD = 0.001
"""Published initialisation of the backbone's convolutions."""


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def _conv1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _conv3_norm_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside an identity: (B, channels, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + x, inplace=True)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        outputs = width * BOTTLENECK_EXPANSION
        self.conv1 = _conv1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(_conv1(inputs, outputs), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut, inplace=True)


def _fuse_layer(channels: tuple[int, ...], target: int, source: int) -> nn.Module:
    """What brings branch `source` to the channels and size of branch `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            _conv1(channels[source], channels[target]),
            nn.BatchNorm2d(channels[target]),
            nn.Upsample(scale_factor=float(2 ** (source - target)), mode="nearest"),
        )
    width = channels[source]
    steps = [_conv3_norm_relu(width, width, 2) for _ in range(target - source - 1)]
    last = nn.Sequential(_conv3(width, channels[target], 2), nn.BatchNorm2d(channels[target]))
    return nn.Sequential(*steps, last)


class _FusionModule(nn.Module):
    """Residual blocks on every branch, then every scale receives the sum of all of them."""

    def __init__(self, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        scales = range(len(channels))
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse_layer(channels, target, source) for source in scales) for target in scales
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        scales = [branch(x) for branch, x in zip(self.branches, scales, strict=True)]
        fused = []
        for row in self.fuse_layers:
            assert isinstance(row, nn.ModuleList)
            total: Tensor = row[0](scales[0])
            for layer, x in zip(row[1:], scales[1:], strict=True):
                total = total + layer(x)
            fused.append(F.relu(total))
        return fused


class HRNet(nn.Module):
    """(B, 3, H, W), sides multiples of 32 -> (B, sum of `spec.channels`, H/4, W/4).

    With the stems of the `branches` that it is trained with; those take images twice as large, or half.
    """

    def __init__(self, spec: HRNetSpec, branches: Sequence[Branch] = ()) -> None:
        super().__init__()
        channels = spec.channels
        layer1_channels = STEM_CHANNELS * BOTTLENECK_EXPANSION
        self.out_channels = sum(channels)
        self.level_channels = channels
        self.conv1 = _conv3(3, STEM_CHANNELS, 2)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = _conv3(STEM_CHANNELS, STEM_CHANNELS, 2)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        widths = (STEM_CHANNELS, *[layer1_channels] * (LAYER1_BLOCKS - 1))
        self.layer1 = nn.Sequential(*(_Bottleneck(inputs, STEM_CHANNELS) for inputs in widths))
        self.transition1 = nn.ModuleList(
            [
                _conv3_norm_relu(layer1_channels, channels[0], 1),
                nn.Sequential(_conv3_norm_relu(layer1_channels, channels[1], 2)),
            ]
        )
        self.transition2 = self._new_branch(channels, 2)
        self.transition3 = self._new_branch(channels, 3)
        self.stage2, self.stage3, self.stage4 = (
            nn.ModuleList(_FusionModule(channels[:branches], blocks) for _ in range(modules))
            for branches, modules, blocks in zip((2, 3, 4), spec.modules, spec.blocks, strict=True)
        )
        self.stems = training_stems(branches, STEM_STRIDES, STEM_CHANNELS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=CONV_STD)
        self.start_stems()

    @staticmethod
    def _new_branch(channels: tuple[int, ...], index: int) -> nn.ModuleList:
        """Identities for the branches that exist and a stride-2 convolution that opens branch `index`."""
        new = nn.Sequential(_conv3_norm_relu(channels[index - 1], channels[index], 2))
        return nn.ModuleList([*(nn.Identity() for _ in range(index)), new])

    def start_stems(self) -> None:
        """Starts the stems that are not deployed from the one that is, say after that was loaded."""
        start_stems(self.stems, [self.first_layer, (self.conv2, self.bn2)])

    @property
    def first_layer(self) -> Layer:
        """What sees the image."""
        return self.conv1, self.bn1

    def forward(self, images: Tensor, branch: Branch = DEPLOYED) -> Tensor:
        """Concatenation of the four scales at stride 4, the coarser ones upsampled bilinearly."""
        return self.merge(self.levels(images, branch))

    def levels(self, images: Tensor, branch: Branch = DEPLOYED) -> tuple[Tensor, ...]:
        """The four scales (B, C_r, h/2^r, w/2^r), finest first; h is H/4 with the deployed stem."""
        x = self._stem(images) if branch == DEPLOYED else self.stems[branch](images)
        x = self.layer1(x)
        scales = [transition(x) for transition in self.transition1]
        for modules, transition in ((self.stage2, self.transition2), (self.stage3, self.transition3)):
            for module in modules:
                scales = module(scales)
            scales = [*scales, transition[-1](scales[-1])]
        for module in self.stage4:
            scales = module(scales)
        return tuple(scales)

    def _stem(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)

    @staticmethod
    def merge(levels: Sequence[Tensor]) -> Tensor:
        """What the dense heads read of the four scales: (B, `out_channels`, h, w)."""
        # By a factor, not to a size: a size taken from a shape is a constant in an exported graph.
        coarse = [
            F.interpolate(scale, scale_factor=float(2**level), mode="bilinear", align_corners=False)
            for level, scale in enumerate(levels[1:], start=1)
        ]
        return torch.cat([levels[0], *coarse], dim=1)
