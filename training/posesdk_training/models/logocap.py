"""The LOGO-CAP network: backbone, dense heads and message passing (arXiv 2109.03622)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posesdk.spec import ModelSpec
from posesdk_training.models.adaptation import (
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
from posesdk_training.models.backbone import build_backbone
from posesdk_training.models.heads import (
    head_transition,
    heatmap_layers,
    initialise_for_focal_loss,
    offset_layers,
    output_layer,
)
from posesdk_training.models.maps import DenseMaps, candidates, flip_average, initial_poses, select_centers
from posesdk_training.models.stems import DEPLOYED, Branch, kept_statistics

__all__ = ["DenseMaps", "Detections", "LogoCap", "flip_average", "initial_poses", "select_centers"]


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


class LogoCap(nn.Module):
    """Normalised images (B, 3, H, W) -> `DenseMaps`; attribute names are the keys of published checkpoints."""

    def __init__(self, spec: ModelSpec, branches: Sequence[Branch] = ()) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.backbone, branches)
        features, heads = self.backbone.out_channels, spec.heads
        self.transition_cls, self.final_layer_cls = heatmap_layers(features, spec)
        self.transition_reg, self.final_layer_reg = offset_layers(features, spec)
        self.transition_embedding = head_transition(features, heads.embedding)
        self.joints_mlp = message_passing(spec.keypoint_count * heads.embedding, spec.keypoint_count, spec.adaptation)
        if heads.activation == "sigmoid":
            initialise_for_focal_loss(output_layer(self.final_layer_cls), output_layer(self.final_layer_reg))

    def forward(self, images: Tensor, branch: Branch = DEPLOYED) -> DenseMaps:
        """Dense maps of normalised RGB images (B, 3, H, W), whose sides are multiples of 32.

        Another `branch` than the deployed one has to be one of those that the model was built with; it takes images
        twice as large, or half, and leaves the running statistics as they are.
        """
        with kept_statistics(self, branch):
            features = self.backbone(images, branch)
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
        found = candidates(maps, self.spec)
        centers, poses, image_index = found.centers, found.poses, found.image_index
        upsampled = upsample(maps.heatmaps)
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
