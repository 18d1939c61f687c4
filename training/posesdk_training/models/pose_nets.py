"""The networks that look at one pose: similarity, confidence and refinement (DAC, arXiv 2208.11975, 3.2 to 3.4).

All of them see, at every keypoint, the features of all scales and a patch of the keypoint's heatmap. That input, the
context, is the one of the exported per-person graph; `pose_context` is the twin of `posesdk.dual_centers` in torch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.grouping import SMALLEST_SCALE
from posesdk.spec import STRIDE, ModelSpec, PoseNetsSpec
from posesdk_training.models.adaptation import CELL_CENTER
from posesdk_training.models.maps import DenseMaps

__all__ = ["PoseNets", "PoseReading", "pose_context", "pose_scales"]

POINT = 2
"""Values of a keypoint's place at the end of its context."""
UNIT_EPS = 1e-12
"""Added to a squared length, so that a code of zeros has one."""


class PoseReading(NamedTuple):
    """What the networks say about N poses; None where a spec leaves the network out.

    `similarity` (N, E) of length 1; `confidence` (N,) in 0..1; `residuals` (N, K, 2) in tenths of the pose's scale.
    """

    similarity: Tensor | None
    confidence: Tensor | None
    residuals: Tensor | None


class _Encoder(nn.Module):
    """Context (N, K, F + p + 2) -> what a network sees of a keypoint, (N, K, e + p): features reduced, patch as is."""

    def __init__(self, features: int, patch: int, width: int) -> None:
        super().__init__()
        self.parts = [features, patch, POINT]
        self.out_channels = width + patch
        self.reduce = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.ReLU())

    def forward(self, context: Tensor) -> Tensor:
        features, patch, _ = torch.split(context, self.parts, dim=2)
        return torch.cat((self.reduce(features), patch), dim=2)


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _PoseCode(nn.Module):
    """Context -> (N, outputs): encoder, then a perceptron on all keypoints together."""

    def __init__(self, keypoints: int, encoder: _Encoder, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = _perceptron(keypoints * encoder.out_channels, *widths)

    def forward(self, context: Tensor) -> Tensor:
        code: Tensor = self.layers(self.encoder(context).flatten(1))
        return code


class _Refinement(nn.Module):
    """Context -> residuals (N, K, 2): a code of the whole pose, then one head for every keypoint, 0 at the start."""

    def __init__(self, keypoints: int, encoder: _Encoder, spec: PoseNetsSpec) -> None:
        super().__init__()
        self.encoder = encoder
        widths, seen = spec.refinement_hidden, encoder.out_channels + POINT
        self.pose = nn.Sequential(_perceptron(keypoints * seen, *widths), nn.ReLU())
        # One layer on [code, keypoint], written as two, so that the code is worked on once and not K times.
        self.from_pose = nn.Linear(widths[-1], spec.refinement_head)
        self.from_keypoint = nn.Linear(seen, spec.refinement_head, bias=False)
        self.output = nn.Linear(spec.refinement_head, POINT)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, context: Tensor) -> Tensor:
        seen = torch.cat((self.encoder(context), context[:, :, -POINT:]), dim=2)  # (N, K, e + p + 2)
        code = self.from_pose(self.pose(seen.flatten(1)))
        residuals: Tensor = self.output(F.relu(code[:, None] + self.from_keypoint(seen)))
        return residuals


class PoseNets(nn.Module):
    """Context (N, K, F + patch^2 + 2) -> `PoseReading`; N is free, and no pose's result depends on the others."""

    def __init__(self, spec: ModelSpec, feature_channels: int) -> None:
        super().__init__()
        nets, keypoints, patch = spec.pose_nets, spec.keypoint_count, spec.pose_nets.patch**2
        self.context_channels = feature_channels + patch + POINT
        self.similarity: nn.Module | None = None
        self.confidence: nn.Module | None = None
        self.refinement: nn.Module | None = None
        if nets.similarity:
            encoder = _Encoder(feature_channels, patch, nets.encoder)
            self.similarity = _PoseCode(keypoints, encoder, (*nets.hidden, nets.embedding))
        if nets.confidence:
            encoder = _Encoder(feature_channels, patch, nets.encoder)
            self.confidence = _PoseCode(keypoints, encoder, (*nets.hidden, 1))
        if nets.refinement:
            self.refinement = _Refinement(keypoints, _Encoder(feature_channels, patch, nets.encoder), nets)

    def forward(self, context: Tensor) -> PoseReading:
        """What the networks of the spec say about N poses, in float32 also under autocast."""
        code = None if self.similarity is None else _unit(self.similarity(context).float())
        confidence = None if self.confidence is None else torch.sigmoid(self.confidence(context).float())[:, 0]
        residuals = None if self.refinement is None else self.refinement(context).float()
        return PoseReading(code, confidence, residuals)


def _unit(code: Tensor) -> Tensor:
    """Rows of length 1; without the expansion of torch's own, whose size some converters write into the graph."""
    return code * torch.rsqrt(code.square().sum(dim=1, keepdim=True) + UNIT_EPS)


def pose_scales(poses: Tensor) -> Tensor:
    """Scale (N,) of poses (N, K, 2) in net px, as `posesdk.grouping.pose_scales`."""
    extent = poses.amax(dim=1) - poses.amin(dim=1)
    return extent.prod(dim=1).sqrt().clamp(min=SMALLEST_SCALE)


@torch.no_grad()
def pose_context(maps: DenseMaps, poses: Tensor, image_index: Tensor, spec: ModelSpec) -> Tensor:
    """Context (N, K, F + patch^2 + 2) of poses (N, K, 2) in net px, float32, without a gradient.

    At each keypoint: the features of the levels, finest first; a patch of its heatmap, row by row, one cell apart; its
    place from the mean of the pose, in scales. Maps are read bilinearly and are 0 outside. `image_index` (N,) int64
    says which image of the batch a pose belongs to.
    """
    poses = poses.float()
    features = [_read_level(level, poses, image_index, r) for r, level in enumerate(maps.levels)]
    patch = _read_patches(maps.heatmaps, poses, image_index, spec.pose_nets.patch)
    place = (poses - poses.mean(dim=1, keepdim=True)) / pose_scales(poses)[:, None, None]
    return torch.cat((*features, patch, place), dim=2)


def _taps(positions: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """(index, weight) pairs of linear sampling at `positions` in cells, weight 0 outside of 0..length-1."""
    lower = positions.floor()
    taps = []
    for cell, weight in ((lower, 1 - (positions - lower)), (lower + 1, positions - lower)):
        inside = (cell >= 0) & (cell <= length - 1)
        taps.append((cell.clamp(0, length - 1).long(), weight * inside))
    return taps


def _read_level(level: Tensor, poses: Tensor, image_index: Tensor, r: int) -> Tensor:
    """(B, C, h, w) at stride 4 * 2^r, read at (N, K, 2) net px -> (N, K, C)."""
    channels, height, width = level.shape[1:]
    stride = STRIDE * 2**r
    table = level.float().permute(0, 2, 3, 1).reshape(-1, channels)
    x, y = ((poses - (stride - 1) / 2) / stride).unbind(2)
    base = image_index[:, None] * (height * width)
    total = table.new_zeros((*x.shape, channels))
    for row, row_weight in _taps(y, height):
        for column, column_weight in _taps(x, width):
            values = table.index_select(0, (base + row * width + column).flatten()).view(total.shape)
            total = total + values * (row_weight * column_weight)[:, :, None]
    return total


def _read_patches(heatmaps: Tensor, poses: Tensor, image_index: Tensor, size: int) -> Tensor:
    """(B, >= K, h, w), keypoint k reading map k around (N, K, 2) net px -> (N, K, size * size)."""
    channels, height, width = heatmaps.shape[1:]
    steps = torch.arange(size, device=poses.device, dtype=poses.dtype) - size // 2
    x, y = ((poses - CELL_CENTER) / STRIDE).unbind(2)
    plane = image_index[:, None] * channels + torch.arange(poses.shape[1], device=poses.device)
    base = (plane * (height * width))[:, :, None, None]
    values = heatmaps.float().reshape(-1)
    total = values.new_zeros((*x.shape, size, size))
    for row, row_weight in _taps(y[:, :, None] + steps, height):
        for column, column_weight in _taps(x[:, :, None] + steps, width):
            index = base + row[:, :, :, None] * width + column[:, :, None, :]
            weights = row_weight[:, :, :, None] * column_weight[:, :, None, :]
            total = total + values[index] * weights
    return total.flatten(2)
