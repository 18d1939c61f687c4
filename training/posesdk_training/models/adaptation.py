"""Local-global contextual adaptation of LOGO-CAP (arXiv 2109.03622, sections 3.3 and 3.4), differentiable.

The twin of `posesdk.adapt`, for training. N poses of many images go together; `image_index` tells them apart. Poses
are net px (x, y) and take no gradient; heatmaps and embedding do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posesdk.spec import STRIDE, AdaptationSpec, Frame

__all__ = [
    "AttentiveNorm",
    "expansion_mesh",
    "global_windows",
    "keep_unanswered",
    "keypoints_from_mesh",
    "keypoints_from_peaks",
    "local_context",
    "message_passing",
    "refine",
    "reweighing",
    "top_two",
    "upsample",
]

STATISTICS_EPS = 1e-3
UNIT_SIGMA = 0.025
"""OKS sigma of a keypoint whose mesh step is one net px."""
CELL_CENTER = (STRIDE - 1) / 2
"""Net px of the center of cell 0 with half-pixel centers."""
PRIOR_CUTOFF = 1e-4
PEAK_WEIGHTS = (0.75, 0.25)
"""Shares of the highest and the second highest peak in a keypoint's place and value."""


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


def upsample(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 4h, 4w) float32; cell u lies at net px 4u + 1.5 in either frame."""
    return F.interpolate(maps.float(), scale_factor=float(STRIDE), mode="bilinear", align_corners=False)


def expansion_mesh(poses: Tensor, sigmas: Tensor, size: int) -> Tensor:
    """Keypoint expansion maps: (N, K, 2) net px -> (N, size, size, K, 2) net px, indexed [y, x].

    A step of the mesh is one net px for the steadiest keypoints (the eyes) and grows with a keypoint's OKS sigma.
    """
    steps = torch.arange(size, device=poses.device, dtype=poses.dtype) - size // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack((x, y), dim=-1)  # (size, size, 2)
    scales = sigmas.to(poses) / UNIT_SIGMA
    return poses[:, None, None] + grid[:, :, None] * scales[:, None]


def _taps(positions: Tensor, lower: Tensor, length: int, frame: Frame) -> tuple[tuple[Tensor, Tensor], ...]:
    """The two (index, weight) pairs of linear sampling at `positions` between cells `lower` and `lower` + 1.

    Outside the map the border value holds. In the published frame the weights are taken against the clamped cells,
    so that between the last cell and one cell further the value drops to zero and ramps back.
    """
    last = length - 1
    upper = lower + 1
    if frame == "published":
        lower = lower.clamp(0, last)
        upper = (lower + 1).clamp(max=last)
        weights = ((upper - positions).clamp(0, 1), (positions - lower).clamp(0, 1))
    else:
        fraction = (positions - lower).clamp(0, 1)
        weights = (1 - fraction, fraction)
    indices = (lower.clamp(0, last).long(), upper.clamp(0, last).long())
    return tuple(zip(indices, weights, strict=True))


def local_context(embedding: Tensor, mesh: Tensor, image_index: Tensor, frame: Frame) -> Tensor:
    """Embedding (B, d, h, w) sampled on the mesh (N, n, n, K, 2) -> (N, K*d, n, n), channel = keypoint * d + c.

    `image_index` (N,) int64 says which image of the batch a pose belongs to.
    """
    depth, height, width = embedding.shape[1:]
    table = embedding.permute(0, 2, 3, 1).reshape(-1, depth)
    cells = mesh / STRIDE if frame == "published" else (mesh - CELL_CENTER) / STRIDE
    base = image_index[:, None, None, None] * (height * width)
    x, y = cells.unbind(-1)  # (N, n, n, K)
    context = table.new_zeros(())
    for row, row_weight in _taps(y, y.floor(), height, frame):
        for column, column_weight in _taps(x, x.floor(), width, frame):
            values = table.index_select(0, (base + row * width + column).flatten())
            context = context + values.view(*x.shape, depth) * (row_weight * column_weight)[..., None]
    return context.permute(0, 3, 4, 1, 2).flatten(1, 2)


def global_windows(maps: Tensor, poses: Tensor, image_index: Tensor, *, size: int, frame: Frame) -> Tensor:
    """Windows of upsampled heatmaps around keypoints: (B, >= K, H, W), (N, K, 2) net px -> (N, K, size, size).

    Step 1 net px; keypoint k reads map k. The maps must be the upsampled ones: bilinear sampling of the stride-4 map
    gives other values wherever a window pixel does not lie on a whole net px.
    """
    channels, height, width = maps.shape[1:]
    steps = torch.arange(size + 1, device=poses.device, dtype=poses.dtype) - size // 2
    lower = poses.floor()[..., None] + steps  # (N, K, 2, size + 1)
    columns = lower[:, :, 0].clamp(0, width - 1).long()
    rows = lower[:, :, 1].clamp(0, height - 1).long()
    planes = image_index[:, None] * channels + torch.arange(poses.shape[1], device=poses.device)
    index = (planes[:, :, None, None] * height + rows[:, :, :, None]) * width + columns[:, :, None, :]
    patch = maps.reshape(-1).gather(0, index.flatten()).view(index.shape)
    positions = poses[..., None] + steps[:-1]
    (_, left), (_, right) = _taps(positions[:, :, 0], lower[:, :, 0, :-1], width, frame)
    (_, top), (_, bottom) = _taps(positions[:, :, 1], lower[:, :, 1, :-1], height, frame)
    patch = patch[:, :, :-1] * top[..., None] + patch[:, :, 1:] * bottom[..., None]
    return patch[..., :-1] * left[:, :, None] + patch[..., 1:] * right[:, :, None]


def reweighing(spec: AdaptationSpec, device: torch.device) -> Tensor:
    """(a, a) Gaussian prior around the initial keypoint; all ones without `reweigh_sigma` or with prior "kam"."""
    size = spec.global_size
    if spec.reweigh_sigma is None or spec.prior == "kam":
        return torch.ones(size, size, device=device)
    steps = torch.arange(size, device=device, dtype=torch.float32) - size // 2
    squares = steps.square()
    prior = torch.exp(-(squares[:, None] + squares) / (2 * spec.reweigh_sigma**2))
    return prior.where(prior >= PRIOR_CUTOFF, 0.0)


def refine(windows: Tensor, kernels: Tensor) -> Tensor:
    """Every window (N, K, a, a) convolved with its own attraction map (N, K, n, n) / n^2, zero border.

    A true convolution (the kernel is flipped), in float32 also under autocast. Training gives raw maps, inference
    maps clamped to 0..1.
    """
    persons, keypoints, size = windows.shape[:3]
    if persons == 0:
        return windows
    with torch.autocast(windows.device.type, enabled=False):
        kernel = (kernels.float() / kernels.shape[-1] ** 2).flip(-2, -1)
        refined = F.conv2d(
            windows.float().reshape(1, -1, size, size),
            kernel.reshape(-1, 1, *kernel.shape[-2:]),
            padding=kernel.shape[-1] // 2,
            groups=persons * keypoints,
        )
    return refined.view(persons, keypoints, size, size)


def top_two(refined: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest values (N, K, 2) of each refined map (N, K, a, a) and their flat indices y * a + x."""
    values, indices = refined.flatten(2).topk(2)
    return values, indices


def keypoints_from_peaks(values: Tensor, indices: Tensor, poses: Tensor, size: int) -> Tensor:
    """Keypoints (N, K, 3) as x, y in net px and value, from the `top_two` of windows around `poses` (N, K, 2)."""
    cells = torch.stack((indices % size, indices // size), dim=-1).to(poses)  # (N, K, 2, 2)
    first, second = PEAK_WEIGHTS
    shift = first * cells[:, :, 0] + second * cells[:, :, 1] - size // 2
    value = first * values[..., :1] + second * values[..., 1:]
    return torch.cat((poses + shift, value), dim=-1)


def keypoints_from_mesh(attraction: Tensor, mesh: Tensor) -> Tensor:
    """Keypoints (N, K, 3) at the maxima of the attraction maps (N, K, n, n), on the mesh (N, n, n, K, 2)."""
    value, index = attraction.flatten(2).max(dim=2)
    places = mesh.permute(0, 3, 1, 2, 4).flatten(2, 3)  # (N, K, n * n, 2)
    place = places.gather(2, index[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return torch.cat((place, value[..., None]), dim=-1)


def keep_unanswered(poses: Tensor, adapted: Tensor, clamped: Tensor) -> Tensor:
    """`adapted` (N, K, 3), but the initial place (N, K, 2) where a clamped attraction map (N, K, n, n) is all 0.

    Every place is as good there, and the value is 0.
    """
    answered = clamped.flatten(2).amax(dim=2, keepdim=True) > 0
    return torch.cat((torch.where(answered, adapted[..., :2], poses), adapted[..., 2:]), dim=-1)
