"""Local-global contextual adaptation of LOGO-CAP (arXiv 2109.03622, sections 3.3 and 3.4), differentiable."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.spec import AdaptationSpec

__all__ = ["AttentiveNorm", "message_passing"]

STATISTICS_EPS = 1e-3


class _Attention(nn.Module):
    """(N, C, 1, 1) standardised means -> (N, pairs, 1, 1) weights in 0..1."""

    def __init__(self, channels: int, pairs: int) -> None:
        super().__init__()
        projection = nn.Conv2d(channels, pairs, 1, bias=False)
        nn.init.kaiming_normal_(projection.weight, mode="fan_out", nonlinearity="relu")
        self.attention = nn.Sequential(projection, nn.Hardsigmoid())

    def forward(self, statistics: Tensor) -> Tensor:
        weights: Tensor = self.attention(statistics)
        return weights


class AttentiveNorm(nn.BatchNorm2d):
    """Batch norm whose affine pair is a per-sample mixture of `pairs` learned ones.

    (N, C, n, n) -> (N, C, n, n). The mixture comes from each sample's own mean and unbiased variance over the window,
    so in evaluation mode a person's result does not depend on the others. Written in pooling and 1x1 convolutions,
    which keep N dynamic in every converter.
    """

    def __init__(self, channels: int, pairs: int) -> None:
        super().__init__(channels, affine=False)
        self.weight_ = nn.Parameter(torch.empty(pairs, channels).normal_(1.0, 0.1))
        self.bias_ = nn.Parameter(torch.empty(pairs, channels).normal_(0.0, 0.1))
        self.attn_weights = _Attention(channels, pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`; in training mode the running statistics follow the batch."""
        window = (int(x.shape[2]), int(x.shape[3]))
        count = window[0] * window[1]
        mean = F.avg_pool2d(x, window)
        variance = F.avg_pool2d((x - mean).square(), window) * (count / max(count - 1, 1))
        mixture = self.attn_weights(mean * torch.rsqrt(variance + STATISTICS_EPS))  # (N, pairs, 1, 1)
        scale = F.conv2d(mixture, self.weight_.t()[:, :, None, None])
        shift = F.conv2d(mixture, self.bias_.t()[:, :, None, None])
        return scale * super().forward(x) + shift


def message_passing(inputs: int, keypoints: int, spec: AdaptationSpec) -> nn.Sequential:
    """Convolutional message passing: local context (N, inputs, n, n) -> attraction maps (N, K, n, n), unclamped.

    Three 3x3 layers and a 1x1 one, or a single 1x1 convolution where `spec.message_channels` is empty.
    """
    layers: list[nn.Module] = []
    channels = inputs
    for index, width in enumerate(spec.message_channels):
        attentive = index == 1 and spec.norm == "attentive"
        norm = AttentiveNorm(width, spec.affine_pairs) if attentive else nn.BatchNorm2d(width)
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, keypoints, 1))
