"""The LOGO-CAP network: backbone, dense heads and message passing (arXiv 2109.03622)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from posesdk.spec import BackboneSpec, EdgeBackboneSpec, ModelSpec
from posesdk_training.models.adaptation import message_passing
from posesdk_training.models.edge import EdgeBackbone
from posesdk_training.models.heads import head_transition, initialise_for_focal_loss
from posesdk_training.models.hrnet import HRNet

__all__ = ["DenseMaps", "LogoCap"]


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
