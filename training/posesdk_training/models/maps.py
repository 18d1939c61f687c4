"""Dense maps of a network, and the initial poses that they hold: the twin of `posesdk.decode` in torch."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from posesdk.skeleton import Skeleton
from posesdk.spec import STRIDE, Frame, ModelSpec
from posesdk_training.models.adaptation import CELL_CENTER, upsample

__all__ = ["Candidates", "DenseMaps", "candidates", "flip_average", "initial_poses", "select_centers"]


@dataclass(frozen=True)
class DenseMaps:
    """What the trunk says about every cell of the stride-4 grid.

    `heatmap_logits` (B, K+Q, h, w), the last channels being the centers, before the activation; `offsets`
    (B, 2KQ, h, w), center by center x0, y0, x1, ..., cell minus keypoint in cells; `embedding` (B, d, h, w), of
    LOGO-CAP, without channels elsewhere; `levels` (B, C_r, h/2^r, w/2^r) of features, of DAC.
    """

    heatmap_logits: Tensor
    offsets: Tensor
    embedding: Tensor
    activation: Literal["none", "sigmoid"] = "none"
    levels: tuple[Tensor, ...] = ()

    @property
    def heatmaps(self) -> Tensor:
        """(B, K+Q, h, w) heatmaps after the activation, as the exported trunk gives them."""
        return torch.sigmoid(self.heatmap_logits) if self.activation == "sigmoid" else self.heatmap_logits


@dataclass(frozen=True)
class Candidates:
    """Initial poses of a batch of images, those of one image together and in the order of their centers' confidence.

    `image_index` (N,) int64; `kinds` (N,) int64, which of the Q centers; `centers` (N, 3) x, y, confidence; `poses`
    (N, K, 2). Net px.
    """

    image_index: Tensor
    kinds: Tensor
    centers: Tensor
    poses: Tensor


def flip_average(maps: DenseMaps, mirrored: DenseMaps, skeleton: Skeleton) -> DenseMaps:
    """Mean of an image's maps and of its mirror image's maps turned back.

    The centers' channels map to themselves; embedding and levels stay the image's own.
    """
    partners = skeleton.flip_indices.tolist()
    channels = [*partners, *range(len(partners), mirrored.heatmap_logits.shape[1])]
    heatmaps = mirrored.heatmaps[:, channels].flip(3)
    batch, _, height, width = mirrored.offsets.shape
    pairs = mirrored.offsets.reshape(batch, -1, len(partners), 2, height, width)[:, :, partners].flip(5)
    offsets = torch.cat((-pairs[:, :, :, :1], pairs[:, :, :, 1:]), dim=3).flatten(1, 3)
    return DenseMaps((maps.heatmaps + heatmaps) / 2, (maps.offsets + offsets) / 2, maps.embedding, levels=maps.levels)


def select_centers(center_maps: Tensor, count: int, frame: Frame = "published") -> Tensor:
    """The `count` highest local maxima of (B, H, W) center maps at full resolution: (B, count, 3) x, y, confidence.

    x and y are whole net px. A map with fewer maxima is filled up with entries of confidence 0 at arbitrary places.
    The consistent frame passes over the outermost pixels, as `posesdk.decode` does.
    """
    highest = F.max_pool2d(center_maps.clamp(min=0)[:, None], 3, 1, 1)[:, 0]
    peaks = center_maps * (highest == center_maps)
    if frame == "consistent":
        peaks = F.pad(peaks[:, 1:-1, 1:-1], (1, 1, 1, 1))
    width = center_maps.shape[2]
    confidence, index = peaks.flatten(1).topk(min(count, peaks[0].numel()))
    return torch.stack(((index % width).to(confidence), (index // width).to(confidence), confidence), dim=-1)


def initial_poses(centers: Tensor, offsets: Tensor, frame: Frame) -> Tensor:
    """Center-offset decode: centers (B, M, 3), offsets (B, 2K, h, w) -> (B, M, K, 2) net px."""
    batch, channels, _, width = offsets.shape
    cells = (centers[..., :2] / STRIDE).floor()  # (B, M, 2)
    index = (cells[..., 1] * width + cells[..., 0]).long()
    picked = offsets.flatten(2).gather(2, index[:, None].expand(-1, channels, -1))
    picked = picked.transpose(1, 2).reshape(batch, -1, channels // 2, 2).float()  # (B, M, K, 2)
    if frame == "published":
        return (centers[..., None, :2] / STRIDE - picked) * STRIDE
    return (cells[:, :, None] - picked) * STRIDE + CELL_CENTER


@torch.no_grad()
def candidates(maps: DenseMaps, spec: ModelSpec) -> Candidates:
    """Initial poses of every center map: each map's best `most_candidates`, of at least `center_threshold`.

    An image without a confident center keeps its best one, of whichever kind. What two centers say about one person is
    not brought together here.
    """
    batch, kinds = len(maps.offsets), spec.center_count
    center_maps = upsample(maps.heatmaps[:, -kinds:]).flatten(0, 1)  # (B * Q, H, W)
    centers = select_centers(center_maps, spec.most_candidates, spec.frame)
    height, width = maps.offsets.shape[2:]
    poses = initial_poses(centers, maps.offsets.reshape(batch * kinds, -1, height, width), spec.frame)
    kind = torch.arange(kinds, device=centers.device).repeat_interleave(centers.shape[1])  # (Q * M)
    centers, poses = (value.reshape(batch, -1, *value.shape[2:]) for value in (centers, poses))
    order = centers[..., 2].argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(batch, device=order.device)[:, None]
    centers, poses = centers[rows, order], poses[rows, order]
    found = centers[..., 2] >= spec.decode.center_threshold
    found[:, 0] |= ~found.any(dim=1)
    return Candidates(found.nonzero()[:, 0], kind[order][found], centers[found], poses[found])
