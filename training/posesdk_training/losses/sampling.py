"""What the adaptation losses read around their poses: local context, heatmap windows, dynamic convolution.

The same values as `posesdk_training.models.adaptation` gives, arranged for a fast backward pass on many poses (a fifth
of the time on a CPU). Differentiable in the maps, not in the poses.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posesdk.spec import STRIDE, Frame
from posesdk_training.models import adaptation
from posesdk_training.models.adaptation import CELL_CENTER

__all__ = ["dynamic_convolution", "heatmap_windows", "image_index", "local_context"]


def local_context(embedding: Tensor, meshes: list[Tensor], *, frame: Frame) -> Tensor:
    """(N, K*d, n, n) embedding (B, d, h, w) on the meshes (N_i, n, n, K, 2) of each image's poses, net px."""
    if embedding.device.type != "cpu":  # a few large operations are faster there than some for each image
        return adaptation.local_context(embedding, torch.cat(meshes), image_index(meshes), frame)
    parts = [_sample_embedding(image[None], mesh, frame) for image, mesh in zip(embedding, meshes, strict=True)]
    return torch.cat(parts)


def image_index(parts: list[Tensor]) -> Tensor:
    """(N,) int64: to which image each of N = sum of N_i entries belongs, on the device of the parts (N_i, ...)."""
    counts = torch.tensor([len(part) for part in parts])
    return torch.arange(len(parts)).repeat_interleave(counts).to(parts[0].device, non_blocking=True)


def _sample_embedding(embedding: Tensor, positions: Tensor, frame: Frame) -> Tensor:
    """(1, d, h, w) at positions (N, n, n, K, 2) in net px -> (N, K*d, n, n)."""
    number, side, _, keypoints, _ = positions.shape
    _, channels, height, width = embedding.shape
    cells = positions / STRIDE if frame == "published" else (positions - CELL_CENTER) / STRIDE
    last = positions.new_tensor([width - 1, height - 1])
    grid = (2 * cells / last - 1).view(1, number, -1, 2)
    values = F.grid_sample(embedding, grid, mode="bilinear", padding_mode="border", align_corners=True)
    values = values.view(channels, number, side, side, keypoints)
    if frame == "published":  # its sampler falls to zero at the last cell and is back one cell further
        beyond = cells - last
        ramp = torch.where((beyond >= 0) & (beyond < 1), beyond, 1.0).prod(-1)
        values = values * ramp
    return values.permute(1, 4, 0, 2, 3).reshape(number, keypoints * channels, side, side)


def heatmap_windows(heatmaps: Tensor, points: Tensor, *, size: int, frame: Frame) -> Tensor:
    """(M, size, size) windows, one net px a step, around points (M, 2) of heatmaps (M, h, w) upsampled by the stride.

    Upsampling and sampling are both separable, so a window is rows @ heatmap @ columns, and the upsampled map is
    never made.
    """
    columns = _axis_weights(points[:, 0], heatmaps.shape[2], size, frame)  # (M, size, w)
    rows = _axis_weights(points[:, 1], heatmaps.shape[1], size, frame)  # (M, size, h)
    return torch.bmm(torch.bmm(rows, heatmaps), columns.transpose(1, 2))


def _axis_weights(points: Tensor, cells: int, size: int, frame: Frame) -> Tensor:
    """(M, size, cells) share of each cell in each of the window's positions along one axis."""
    length, radius = STRIDE * cells, size // 2
    identity = torch.eye(cells, device=points.device)[None]
    upsampling = (
        F.interpolate(identity, scale_factor=float(STRIDE), mode="linear", align_corners=False)[0].t().contiguous()
    )
    steps = torch.arange(-radius, radius + 1, device=points.device)
    positions = points[:, None] + steps  # (M, size)
    if frame == "consistent":
        positions = positions.clamp(0, length - 1)
    first = positions.floor().clamp(0, length - 1)
    second = (first + 1).clamp(max=length - 1)
    far = (positions - first).clamp(0, 1)
    near = (second - positions).clamp(0, 1) if frame == "published" else 1 - far
    return near[..., None] * upsampling[first.long()] + far[..., None] * upsampling[second.long()]


def dynamic_convolution(windows: Tensor, kernels: Tensor) -> Tensor:
    """True convolution of each of the windows (M, a, a) with its own kernel (M, n, n), zero padded."""
    result: Tensor = _Correlation.apply(windows, kernels.flip(1, 2).contiguous())  # type: ignore[no-untyped-call]
    return result


class _Correlation(torch.autograd.Function):
    """Cross-correlation, one kernel per window; the gradients are correlations too.

    PyTorch's own gradient of a grouped kernel takes four times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, windows: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(windows, kernels)
        return _grouped(windows, kernels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        windows, kernels = ctx.saved_tensors
        radius = kernels.shape[-1] // 2
        to_windows = _grouped(gradient, kernels.flip(1, 2)) if ctx.needs_input_grad[0] else None
        to_kernels = None
        if ctx.needs_input_grad[1]:
            padded = F.pad(windows, (radius, radius, radius, radius))
            to_kernels = F.conv2d(padded[None], gradient[:, None], groups=len(gradient))[0]
        return to_windows, to_kernels


def _grouped(windows: Tensor, kernels: Tensor) -> Tensor:
    return F.conv2d(windows[None], kernels[:, None], padding=kernels.shape[-1] // 2, groups=len(kernels))[0]
