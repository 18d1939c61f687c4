"""The two graphs that a model is run and exported as: `trunk` and `adapt`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk_training.models.build import PoseModel
from posesdk_training.models.dual_centers import DualCenters
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.maps import DenseMaps
from posesdk_training.models.normalisation import LEVELS, take_levels

__all__ = ["Adapt", "Trunk", "output_maps"]


class Trunk(nn.Module):
    """`image` uint8 (B, H, W, 3) RGB -> heatmaps (B, K+Q, h, w), offsets (B, 2KQ, h, w), and what poses are read from.

    That is the embedding (B, h, w, d), of LOGO-CAP, or the four levels (B, h/2^r, w/2^r, C_r), of DAC. Normalisation is
    inside; where the mean is 0 it is part of the first convolution and costs nothing. The model is put into evaluation
    mode.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        source = model.spec.input
        self.centers = any(source.mean)
        self.model = model if self.centers else take_levels(model)
        self.register_buffer("mean", LEVELS * torch.tensor(source.mean))
        self.register_buffer("variance", (LEVELS * torch.tensor(source.std)).square())
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The dense maps of a batch of images."""
        # TensorRT takes a uint8 input only into a Cast, so the cast comes before the transpose.
        pixels = image.float().permute(0, 3, 1, 2)
        if not self.centers:
            return output_maps(self.model(pixels))
        # As one operator: runtimes take a tenth of the time that a subtraction and a division of planes take.
        return output_maps(self.model(F.batch_norm(pixels, self.mean, self.variance, eps=0.0)))


def output_maps(maps: DenseMaps) -> tuple[Tensor, ...]:
    """The outputs of a trunk, in the order of `posesdk.methods.trunk_outputs`."""
    features = maps.levels or (maps.embedding,)
    return maps.heatmaps, maps.offsets, *(level.permute(0, 2, 3, 1) for level in features)


class Adapt(nn.Module):
    """What looks at one pose, for N of them; N is free.

    LOGO-CAP: `context` (N, K*d, n, n) -> attraction maps (N, K, n, n), before the clamp. DAC: `context`
    (N, K, F + patch^2 + 2) -> similarity (N, E), confidence (N), residuals (N, K, 2), those that the spec asks for.
    """

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.joints_mlp = model.joints_mlp if isinstance(model, LogoCap) else None
        self.pose_nets = model.pose_nets if isinstance(model, DualCenters) else None
        self.eval()

    def forward(self, context: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The attraction maps, or what the pose networks say."""
        if self.pose_nets is not None:
            return tuple(value for value in self.pose_nets(context) if value is not None)
        assert self.joints_mlp is not None
        maps: Tensor = self.joints_mlp(context)
        return maps
