"""The Dual Anatomical Centers network: backbone, dense heads and pose networks (arXiv 2208.11975).

A person is seen from two centers, its head and its body. What brings their poses together is the host's
(`posesdk.dual_centers`), by what the pose networks say.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from posesdk.spec import ModelSpec
from posesdk_training.models.backbone import build_backbone
from posesdk_training.models.heads import (
    heatmap_layers,
    initialise_as_published,
    initialise_for_focal_loss,
    offset_layers,
    output_layer,
)
from posesdk_training.models.maps import Candidates, DenseMaps, candidates
from posesdk_training.models.pose_nets import PoseNets, PoseReading, pose_context
from posesdk_training.models.stems import DEPLOYED, Branch, kept_statistics

__all__ = ["DualCenters"]


class DualCenters(nn.Module):
    """Normalised images (B, 3, H, W) -> `DenseMaps`; the dense part's attribute names are those of `LogoCap`."""

    def __init__(self, spec: ModelSpec, branches: Sequence[Branch] = ()) -> None:
        super().__init__()
        if spec.frame != "consistent":
            raise ValueError(f"model {spec.name}: method 'dac' is for frame 'consistent', got {spec.frame!r}")
        self.spec = spec
        self.backbone = build_backbone(spec.backbone, branches)
        features = self.backbone.out_channels
        self.transition_cls, self.final_layer_cls = heatmap_layers(features, spec)
        self.transition_reg, self.final_layer_reg = offset_layers(features, spec)
        if spec.heads.activation == "sigmoid":
            initialise_for_focal_loss(output_layer(self.final_layer_cls), output_layer(self.final_layer_reg))
        else:
            for layers in (self.transition_cls, self.final_layer_cls, self.transition_reg):
                initialise_as_published(layers)
        self.pose_nets = PoseNets(spec, sum(self.backbone.level_channels))

    def forward(self, images: Tensor, branch: Branch = DEPLOYED) -> DenseMaps:
        """Dense maps of normalised RGB images (B, 3, H, W), whose sides are multiples of 32.

        Another `branch` than the deployed one has to be one of those that the model was built with; it takes images
        twice as large, or half, and leaves the running statistics as they are.
        """
        with kept_statistics(self, branch):
            levels = self.backbone.levels(images, branch)
            features = self.backbone.merge(levels)
            return DenseMaps(
                heatmap_logits=self.final_layer_cls(self.transition_cls(features)),
                offsets=self.final_layer_reg(self.transition_reg(features)) * self.spec.heads.offset_scale,
                embedding=features[:, :0],
                activation=self.spec.heads.activation,
                levels=levels,
            )

    def candidates(self, maps: DenseMaps) -> Candidates:
        """Poses of every center of dense maps, those of one image together."""
        return candidates(maps, self.spec)

    def read_poses(self, maps: DenseMaps, poses: Tensor, image_index: Tensor) -> PoseReading:
        """What the pose networks say about poses (N, K, 2) in net px; gradients end at the networks' input."""
        reading: PoseReading = self.pose_nets(pose_context(maps, poses, image_index, self.spec))
        return reading
