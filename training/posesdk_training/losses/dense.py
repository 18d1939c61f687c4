"""Losses of the dense maps: heatmaps and center offsets (LOGO-CAP, section 3.5; DAC, section 3.1)."""

import torch
from torch.nn import functional as F

from posesdk_training.data.batches import Batch
from posesdk_training.data.views import View
from posesdk_training.models.maps import DenseMaps
from posesdk_training.settings.learning import LossConfig

__all__ = ["dense_losses", "focal_heatmap_loss", "mse_heatmap_loss", "offset_loss"]

Tensor = torch.Tensor

PEAK_LEVEL = 0.6
"""Target values above it count as a peak; a peak covers about three cells at the smallest sigma."""
CELLS_PER_PEAK = 3
MIN_PEAK_CELLS = 8


def mse_heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over (B, K+Q, h, w) of weight * (p - t)^2, as published."""
    return (weights * (heatmaps - targets) ** 2).mean()


def focal_heatmap_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, centers: int = 1) -> Tensor:
    """Binary cross-entropy weighted by |t - p|^2 and normalised by the number of peaks.

    Keypoint channels together and each of the `centers` (the last channels) are normalised apart, and added up. So a
    center counts as much beside another as it does alone, and a head that is rarely labelled as much as a body. Plain
    squared error starts far slower from scratch.
    """
    modulation = (targets - torch.sigmoid(logits)).square()
    loss = modulation * F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weights
    peaks = (targets * weights > PEAK_LEVEL).float()
    total = logits.new_zeros(())
    first = logits.shape[1] - centers
    for part in (slice(0, first), *(slice(center, center + 1) for center in range(first, logits.shape[1]))):
        number = peaks[:, part].sum().clamp(min=MIN_PEAK_CELLS) / CELLS_PER_PEAK
        total = total + loss[:, part].sum() / number
    return total


def offset_loss(
    offsets: Tensor, targets: Tensor, weights: Tensor, *, beta: float, scaled: bool, per_cell: bool = False
) -> Tensor:
    """SmoothL1 of the offsets, summed with weights, over the number of weighted elements, or of their cells.

    `scaled`: the error is weighted inside the SmoothL1, so that `beta` is relative to the person's size. `per_cell`:
    the sum is divided by the number of center cells (the paper's |C_GT|), not by that of keypoint coordinates.
    """
    weighted = (weights > 0).any(dim=1) if per_cell else weights > 0
    number = weighted.sum().clamp(min=1)
    if scaled:
        error = (offsets - targets) * weights
        return F.smooth_l1_loss(error, torch.zeros_like(error), beta=beta, reduction="sum") / number
    return (F.smooth_l1_loss(offsets, targets, beta=beta, reduction="none") * weights).sum() / number


def dense_losses(maps: DenseMaps, targets: Batch | View, config: LossConfig, *, centers: int = 1) -> dict[str, Tensor]:
    """The dense terms of a model with so many `centers` a person, already times their factors, by name.

    The offsets to each center are normalised apart; their term is the mean.
    """
    heatmap_targets, weights = targets.heatmaps.float(), targets.heatmap_weights.float()
    if config.heatmap == "focal":
        heatmap = focal_heatmap_loss(maps.heatmap_logits.float(), heatmap_targets, weights, centers=centers)
    else:
        heatmap = mse_heatmap_loss(maps.heatmaps.float(), heatmap_targets, weights)
    of_centers = (
        value.float().chunk(centers, dim=1) for value in (maps.offsets, targets.offsets, targets.offset_weights)
    )
    terms = [
        offset_loss(
            *of_center,
            beta=config.offset_beta,
            scaled=config.offset_error == "relative",
            per_cell=config.offset_normaliser == "cells",
        )
        for of_center in zip(*of_centers, strict=True)
    ]
    offset = torch.stack(terms).mean()
    return {"heatmap": config.heatmap_factor * heatmap, "offset": config.offset_factor * offset}
