"""The two graphs that a model is run and exported as: `trunk` and `adapt`."""

import torch
from torch import Tensor, nn

from posesdk_training.models.logocap import LogoCap

__all__ = ["Adapt", "Trunk"]

LEVELS = 255.0


class Trunk(nn.Module):
    """`image` uint8 (B, H, W, 3) RGB -> heatmaps (B, K+1, h, w), offsets (B, 2K, h, w), embedding (B, h, w, d).

    Normalisation is inside. The model is put into evaluation mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: LogoCap) -> None:
        super().__init__()
        self.model = model
        source = model.spec.input
        self.register_buffer("mean", LEVELS * torch.tensor(source.mean).view(1, 3, 1, 1))
        self.register_buffer("std", LEVELS * torch.tensor(source.std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The dense maps of a batch of images."""
        # TensorRT takes a uint8 input only into a Cast, so the cast comes before the transpose.
        pixels = image.float().permute(0, 3, 1, 2)
        maps = self.model((pixels - self.mean) / self.std)
        return maps.heatmaps, maps.offsets, maps.embedding.permute(0, 2, 3, 1)


class Adapt(nn.Module):
    """`context` (N, K*d, n, n) -> attraction maps (N, K, n, n), before the clamp."""

    def __init__(self, model: LogoCap) -> None:
        super().__init__()
        self.joints_mlp = model.joints_mlp
        self.eval()

    def forward(self, context: Tensor) -> Tensor:
        """The attraction maps of N persons."""
        maps: Tensor = self.joints_mlp(context)
        return maps
