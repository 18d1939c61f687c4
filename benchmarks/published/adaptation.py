"""Keypoint expansion, local context, and the refinement of every keypoint on a window of its upsampled heatmap."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["expand", "gaussian", "local_context", "refine_windows", "top_two", "windows"]

STRIDE = 4
SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""COCO's."""
UNIT_SIGMA = 0.025
CUTOFF = 1e-4
BEST, SECOND = 0.75, 0.25


def expand(poses: Tensor, size: int) -> Tensor:
    """Expansion mesh (N, n, n, 17, 2) of poses (N, 17, 2) in net px, rows first: steps of sigma / 0.025 px."""
    scales = torch.tensor(SIGMAS, device=poses.device) / UNIT_SIGMA
    return poses[:, None, None] + _lattice(size, poses.device)[:, :, None] * scales[:, None]


def _lattice(size: int, device: torch.device) -> Tensor:
    """Whole steps (size, size, 2) around 0 as x and y."""
    steps = torch.arange(size, device=device) - size // 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x, y), dim=2).float()


def _corners(points: Tensor, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat index and weight of the four samples around points (..., 2): the published sampler, its right edge too.

    Beyond the last sample both neighbours are that sample, and only one of the weights is left.
    """
    x, y = points.unbind(-1)
    left, top = x.floor().clamp(0, width - 1), y.floor().clamp(0, height - 1)
    right, bottom = (left + 1).clamp(0, width - 1), (top + 1).clamp(0, height - 1)
    x_weights = (right - x).clamp(0, 1), (x - left).clamp(0, 1)
    y_weights = (bottom - y).clamp(0, 1), (y - top).clamp(0, 1)
    for row, y_weight in zip((top, bottom), y_weights, strict=True):
        for column, x_weight in zip((left, right), x_weights, strict=True):
            yield (row * width + column).long(), x_weight * y_weight


def local_context(embedding: Tensor, mesh: Tensor) -> Tensor:
    """(N, 17 d, n, n): the embedding (1, d, h, w) on the mesh (N, n, n, 17, 2), keypoint by keypoint."""
    _, depth, height, width = embedding.shape
    cells = embedding[0].permute(1, 2, 0).reshape(-1, depth)
    sampled = mesh.new_zeros(*mesh.shape[:-1], depth)
    for index, weight in _corners(mesh / STRIDE, height, width):
        sampled += cells[index] * weight[..., None]
    return sampled.flatten(3).permute(0, 3, 1, 2).contiguous()


def windows(heatmaps: Tensor, poses: Tensor, size: int) -> Tensor:
    """(N, 17, a, a): each keypoint's own upsampled heatmap (17, H, W), 1 net px a step, around (N, 17, 2)."""
    count, height, width = heatmaps.shape
    places = poses[:, :, None, None] + _lattice(size, poses.device)
    planes = (torch.arange(count, device=poses.device) * height * width)[:, None, None]
    values, sampled = heatmaps.flatten(), heatmaps.new_zeros(places.shape[:-1])
    for index, weight in _corners(places, height, width):
        sampled += values[planes + index] * weight
    return sampled


def gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    """(a, a), 1 in the middle."""
    squares = _lattice(size, device).square().sum(dim=2)
    weights = torch.exp(-squares / (2 * sigma**2))
    weights[weights < CUTOFF] = 0
    return weights


def refine_windows(reweighed: Tensor, attraction: Tensor) -> Tensor:
    """Windows (N, 17, a, a) convolved with attraction maps (N, 17, n, n) in 0..1, one group a map, over n^2."""
    persons, count, side = reweighed.shape[:3]
    size = attraction.shape[2]
    kernels = (attraction / size**2).flip(2, 3).reshape(persons * count, 1, size, size)
    maps = reweighed.reshape(1, persons * count, side, side)
    refined = F.conv2d(maps, kernels, padding=size // 2, groups=persons * count)
    return refined.view(persons, count, side, side)


def top_two(refined: Tensor, poses: Tensor) -> Tensor:
    """Keypoints (N, 17, 3), x and y in net px and value: three parts of the best pixel and one of the second."""
    size = refined.shape[2]
    values, index = refined.flatten(2).topk(2)
    x, y = (index % size).float(), (index // size).float()
    weights = torch.tensor((BEST, SECOND), device=poses.device)
    shift = torch.stack(((x * weights).sum(2), (y * weights).sum(2)), dim=2) - size // 2
    return torch.cat((poses + shift, (values * weights).sum(2, keepdim=True)), dim=2)
