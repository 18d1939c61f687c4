"""Losses of the networks that look at a pose: similarity, confidence, refinement (DAC, arXiv 2208.11975, 3.2 to 3.4).

They see detached maps and share no weights, so what each one's loss counts beside the others' does not matter.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from posesdk.dual_centers import RESIDUAL_STEP
from posesdk.spec import STRIDE
from posesdk_training.data.batches import Batch
from posesdk_training.losses.pose_samples import ImagePoses, PoseSamples, Seed, draw_samples
from posesdk_training.models.dual_centers import DualCenters
from posesdk_training.models.maps import DenseMaps
from posesdk_training.models.pose_nets import PoseReading, pose_scales
from posesdk_training.settings.learning import LossConfig

__all__ = [
    "confidence_loss",
    "losses_of_samples",
    "masked_poses",
    "pose_net_losses",
    "pose_samples",
    "refinement_loss",
    "similarity_loss",
]

FAR = 1e6
"""Net px, outside of every input."""
MASKED_SHARE = 0.5
"""Of a pose's keypoints: when so many lie where nothing is labelled, the pose does."""
FARTHEST = 1.0
"""Scales of the pose; a keypoint that is further off counts as that far."""


def pose_net_losses(
    model: DualCenters, maps: DenseMaps, batch: Batch, config: LossConfig, *, seeds: Sequence[Seed]
) -> dict[str, Tensor]:
    """The terms "similarity", "confidence" and "refinement" of the networks that the model has.

    `seeds`, one a sample, say what is drawn for it. Gradients reach these networks alone.
    """
    plain = _in_float32(maps)
    samples = pose_samples(model, plain, batch, config, seeds=seeds)
    return losses_of_samples(model, plain, samples, config)


def _in_float32(maps: DenseMaps) -> DenseMaps:
    """As a device has them: in less, equal neighbours would both be maxima."""
    return replace(
        maps,
        heatmap_logits=maps.heatmap_logits.float(),
        offsets=maps.offsets.float(),
        levels=tuple(level.float() for level in maps.levels),
    )


@torch.no_grad()
def pose_samples(
    model: DualCenters, maps: DenseMaps, batch: Batch, config: LossConfig, *, seeds: Sequence[Seed]
) -> PoseSamples:
    """The decoded candidates of maps in float32, with what is drawn beside them (`losses.pose_samples`)."""
    with torch.autocast(maps.offsets.device.type, enabled=False):
        found = model.candidates(maps)
        poses = found.poses.nan_to_num(0.0, posinf=FAR, neginf=-FAR)  # no index may come from what is no number
        masked = masked_poses(batch.heatmap_weights, poses, found.image_index)
    counts = torch.bincount(found.image_index, minlength=len(batch.keypoints)).tolist()
    people = [len(keypoints) for keypoints in batch.keypoints]
    parts = (
        np.split(poses.cpu().numpy(), np.cumsum(counts)[:-1]),
        np.split(masked.cpu().numpy(), np.cumsum(counts)[:-1]),
        np.split(torch.cat(batch.keypoints).cpu().numpy(), np.cumsum(people)[:-1]),
        np.split(torch.cat(batch.areas).cpu().numpy(), np.cumsum(people)[:-1]),
    )
    images = [ImagePoses(*own) for own in zip(*parts, strict=True)]
    return draw_samples(images, model.spec, config, seeds=seeds)


def masked_poses(weights: Tensor, poses: Tensor, image_index: Tensor) -> Tensor:
    """(N,) whether at least half of the keypoints of poses (N, K, 2) in net px lie where nothing is labelled.

    Those are the cells of weight 0 in the keypoint's channel of the heatmap weights (B, 1 or K+Q, h, w). What lies
    outside of them is no such place.
    """
    count = poses.shape[1]
    channels, height, width = weights.shape[1:]
    cells = ((poses + 0.5) / STRIDE).floor().long()
    inside = (cells >= 0).all(-1) & (cells[..., 0] < width) & (cells[..., 1] < height)
    columns, rows = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
    channel = torch.arange(count, device=poses.device) if channels > 1 else torch.zeros_like(columns[0])
    unlabelled = weights[image_index[:, None], channel[None], rows, columns] == 0
    share: Tensor = (unlabelled & inside).float().mean(dim=1)
    return share >= MASKED_SHARE


def losses_of_samples(
    model: DualCenters, maps: DenseMaps, samples: PoseSamples, config: LossConfig
) -> dict[str, Tensor]:
    """The terms for given samples. What there is no sample for costs nothing."""
    device = maps.offsets.device
    poses, images = _sent(samples.poses, device), _sent(samples.images, device)
    reading: PoseReading = model.read_poses(maps, poses, images)
    with torch.autocast(device.type, enabled=False):
        losses = {}
        if reading.similarity is not None:
            pairs, same = _sent(samples.pairs, device), _sent(samples.same, device)
            losses["similarity"] = similarity_loss(reading.similarity.float(), pairs, same)
        similarity = _sent(samples.oks, device)
        if reading.confidence is not None:
            losses["confidence"] = confidence_loss(reading.confidence.float(), similarity)
        if reading.residuals is not None:
            persons = _sent(samples.persons, device)
            used = (persons[..., 2] > 0) & (similarity >= config.refinement_oks)[:, None]
            losses["refinement"] = refinement_loss(reading.residuals.float(), poses, persons[..., :2], used)
    return losses


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def similarity_loss(embedding: Tensor, pairs: Tensor, same: Tensor) -> Tensor:
    """Mean over pairs (M, 2) of embeddings (N, E): 1 - cosine where they are the `same` (M,), else the cosine above 0.

    That is the cosine embedding loss of margin 0.
    """
    first, second = embedding[pairs[:, 0]], embedding[pairs[:, 1]]
    label = torch.where(same, 1.0, -1.0)
    total = F.cosine_embedding_loss(first, second, label, margin=0.0, reduction="sum")
    return total / max(len(pairs), 1)


def confidence_loss(confidence: Tensor, oks: Tensor) -> Tensor:
    """Mean squared error (N,) of the confidence towards the OKS, equation 2."""
    return (confidence - oks).square().sum() / max(len(oks), 1)


def refinement_loss(residuals: Tensor, poses: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    """Equation 3, in the residuals' unit: mean over the keypoints `used` (N, K) of the squared distance that is left.

    `residuals` (N, K, 2) are in tenths of the pose's scale; `poses` and `targets` (N, K, 2) in net px. A target further
    off than the pose's scale counts as one in the same direction at that distance.
    """
    wanted = (targets - poses) / (RESIDUAL_STEP * pose_scales(poses)[:, None, None])
    farthest = FARTHEST / RESIDUAL_STEP
    wanted = wanted * (farthest / wanted.norm(dim=2, keepdim=True).clamp(min=farthest))
    squared = torch.where(used, (residuals - wanted).square().sum(dim=2), 0.0)
    return squared.sum() / used.sum().clamp(min=1)
