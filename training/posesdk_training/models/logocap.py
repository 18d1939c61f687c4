"""The LOGO-CAP network: backbone, dense heads and message passing (arXiv 2109.03622)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.skeleton import Skeleton
from posesdk.spec import STRIDE, BackboneSpec, EdgeBackboneSpec, Frame, ModelSpec
from posesdk_training.models.adaptation import (
    CELL_CENTER,
    expansion_mesh,
    global_windows,
    keep_unanswered,
    keypoints_from_mesh,
    keypoints_from_peaks,
    local_context,
    message_passing,
    refine,
    reweighing,
    top_two,
    upsample,
)
from posesdk_training.models.edge import EdgeBackbone
from posesdk_training.models.heads import head_transition, initialise_for_focal_loss
from posesdk_training.models.hrnet import HRNet

__all__ = ["DenseMaps", "Detections", "LogoCap", "flip_average", "initial_poses", "select_centers"]


@dataclass(frozen=True)
class DenseMaps:
    """What the trunk says about every cell of the stride-4 grid.

    `heatmap_logits` (B, K+1, h, w), the last channel being the center, before the activation; `offsets` (B, 2K, h, w)
    as x0, y0, x1, ..., cell minus keypoint in cells; `embedding` (B, d, h, w).
    """

    heatmap_logits: Tensor
    offsets: Tensor
    embedding: Tensor
    activation: Literal["none", "sigmoid"] = "none"

    @property
    def heatmaps(self) -> Tensor:
        """(B, K+1, h, w) heatmaps after the activation, as the exported trunk gives them."""
        return torch.sigmoid(self.heatmap_logits) if self.activation == "sigmoid" else self.heatmap_logits


@dataclass(frozen=True)
class Detections:
    """Poses of a batch of images, those of one image together and in the order of their centers' confidence.

    `image_index` (N,) int64; `centers` (N, 3) x, y, confidence; `initial_poses` (N, K, 2); `attraction_maps`
    (N, K, n, n), raw; `keypoints` (N, K, 3) x, y, score; `scores` (N,). Net px. A pose with a score of 0 is none.
    """

    image_index: Tensor
    centers: Tensor
    initial_poses: Tensor
    attraction_maps: Tensor
    keypoints: Tensor
    scores: Tensor


def flip_average(maps: DenseMaps, mirrored: DenseMaps, skeleton: Skeleton) -> DenseMaps:
    """Mean of an image's maps and of its mirror image's maps turned back; the embedding stays the image's own."""
    partners = skeleton.flip_indices.tolist()
    heatmaps = mirrored.heatmaps[:, [*partners, len(partners)]].flip(3)
    batch, _, height, width = mirrored.offsets.shape
    pairs = mirrored.offsets.reshape(batch, -1, 2, height, width)[:, partners].flip(4)
    offsets = torch.cat((-pairs[:, :, :1], pairs[:, :, 1:]), dim=2).flatten(1, 2)
    return DenseMaps((maps.heatmaps + heatmaps) / 2, (maps.offsets + offsets) / 2, maps.embedding)


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


def _backbone(spec: BackboneSpec) -> EdgeBackbone | HRNet:
    return EdgeBackbone(spec) if isinstance(spec, EdgeBackboneSpec) else HRNet(spec)


class LogoCap(nn.Module):
    """Normalised images (B, 3, H, W) -> `DenseMaps`; attribute names are the keys of published checkpoints."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        keypoints, heads = spec.keypoint_count, spec.heads
        self.backbone = _backbone(spec.backbone)
        features = self.backbone.out_channels
        self.transition_cls = head_transition(features, heads.heatmap_channels)
        self.final_layer_cls = nn.Conv2d(heads.heatmap_channels, keypoints + 1, 1)
        self.transition_reg = head_transition(features, heads.offset_channels)
        self.final_layer_reg = nn.Conv2d(heads.offset_channels, 2 * keypoints, 1)
        self.transition_embedding = head_transition(features, heads.embedding)
        self.joints_mlp = message_passing(keypoints * heads.embedding, keypoints, spec.adaptation)
        if heads.activation == "sigmoid":
            initialise_for_focal_loss(self.final_layer_cls, self.final_layer_reg)

    def forward(self, images: Tensor) -> DenseMaps:
        """Dense maps of normalised RGB images (B, 3, H, W), whose sides are multiples of 32."""
        features = self.backbone(images)
        return DenseMaps(
            heatmap_logits=self.final_layer_cls(self.transition_cls(features)),
            offsets=self.final_layer_reg(self.transition_reg(features)) * self.spec.heads.offset_scale,
            embedding=self.transition_embedding(features),
            activation=self.spec.heads.activation,
        )

    def attraction_maps(self, embedding: Tensor, mesh: Tensor, image_index: Tensor) -> Tensor:
        """Raw attraction maps (N, K, n, n) of poses whose expansion mesh is (N, n, n, K, 2); not clamped."""
        maps: Tensor = self.joints_mlp(local_context(embedding, mesh, image_index, self.spec.frame))
        return maps

    def expansion_mesh(self, poses: Tensor) -> Tensor:
        """Expansion mesh (N, n, n, K, 2) of poses (N, K, 2), net px."""
        sigmas = torch.tensor(self.spec.skeleton.sigmas).to(poses.device, non_blocking=True)
        return expansion_mesh(poses, sigmas, self.spec.adaptation.local_size)

    def reweighed_windows(self, upsampled: Tensor, poses: Tensor, image_index: Tensor) -> Tensor:
        """Windows (N, K, a, a) of the `upsample`d heatmaps around poses (N, K, 2), times the Gaussian prior."""
        size, frame = self.spec.adaptation.global_size, self.spec.frame
        windows = global_windows(upsampled, poses, image_index, size=size, frame=frame)
        return windows * reweighing(self.spec.adaptation, poses.device)

    def _adapt(self, upsampled: Tensor, poses: Tensor, image_index: Tensor, attraction: Tensor) -> Tensor:
        """Adapted keypoints (N, K, 3), x, y in net px and value, by the level and prior of the spec."""
        adaptation = self.spec.adaptation
        if adaptation.level == "none":
            values = global_windows(upsampled, poses, image_index, size=1, frame=self.spec.frame)
            return torch.cat((poses, values[..., 0]), dim=-1)
        clamped = attraction.clamp(0, 1)
        if adaptation.level == "partial":
            adapted = keypoints_from_mesh(clamped, self.expansion_mesh(poses))
            return keep_unanswered(poses, adapted, clamped)
        windows = self.reweighed_windows(upsampled, poses, image_index)
        if adaptation.prior == "kem":
            return keypoints_from_peaks(*top_two(windows), poses, adaptation.global_size)
        adapted = keypoints_from_peaks(*top_two(refine(windows, clamped)), poses, adaptation.global_size)
        return keep_unanswered(poses, adapted, clamped)

    @torch.no_grad()
    def decode(self, maps: DenseMaps) -> Detections:
        """Poses of dense maps: centers, initial poses, adaptation and scores (arXiv 2109.03622, section 3)."""
        upsampled = upsample(maps.heatmaps)
        centers = select_centers(upsampled[:, -1], self.spec.decode.max_people, self.spec.frame)
        found = centers[..., 2] >= self.spec.decode.center_threshold
        found[:, 0] |= ~found.any(dim=1)  # an image without a confident center keeps its best one
        poses = initial_poses(centers, maps.offsets, self.spec.frame)[found]
        image_index = found.nonzero()[:, 0]
        centers = centers[found]
        attraction = self.attraction_maps(maps.embedding, self.expansion_mesh(poses), image_index)
        keypoints = self._adapt(upsampled, poses, image_index, attraction)
        keypoints[..., 2] *= centers[:, 2:]
        return Detections(image_index, centers, poses, attraction, keypoints, keypoints[..., 2].mean(dim=1))

    @torch.no_grad()
    def detect(self, images: Tensor) -> Detections:
        """Poses in normalised images (B, 3, H, W), with the flip test where the spec asks for it."""
        maps: DenseMaps = self(images)
        if self.spec.decode.flip_test:
            maps = flip_average(maps, self(images.flip(3)), self.spec.skeleton)
        return self.decode(maps)
