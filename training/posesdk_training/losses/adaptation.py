"""Losses of the local-global adaptation branch (LOGO-CAP, arXiv 2109.03622, section 3.5)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from posesdk_training.data.batches import Batch
from posesdk_training.losses.matching import PoseMatch, match_batch
from posesdk_training.losses.sampling import dynamic_convolution, heatmap_windows, image_index, local_context
from posesdk_training.models.adaptation import reweighing, upsample
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.maps import DenseMaps, initial_poses, select_centers
from posesdk_training.settings.learning import LossConfig

__all__ = ["KeptPoses", "adaptation_losses", "keep_poses", "losses_of_poses"]

FOREGROUND_SIGMAS = 3
"""Cells this many sigmas around the keypoint are the foreground of the refined target."""
BACKGROUND_WEIGHT = 0.1
FAR = 1e6
"""Net px, outside of every input."""


@dataclass(frozen=True, slots=True)
class KeptPoses:
    """The poses of a batch that are trained on: `poses` (N_i, K, 2) net px per image, and what all N are matched to."""

    poses: list[Tensor]
    match: PoseMatch


def adaptation_losses(model: LogoCap, maps: DenseMaps, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """The terms "oks" and "refined", already times their factors.

    Initial poses come from the detached maps without a threshold, the best `max_people` of each center of a person;
    gradients reach the message passing, the embedding and the keypoint heatmaps. Every image contributes at least one
    pose, with weight 0 where none fits.
    """
    spec = model.spec
    with torch.autocast(maps.offsets.device.type, enabled=False), torch.no_grad():
        center_maps = upsample(maps.heatmaps[:, -spec.center_count :]).flatten(0, 1)  # (B * Q, H, W)
        centers = select_centers(center_maps, spec.decode.max_people, spec.frame)
        offsets = maps.offsets.float().reshape(len(center_maps), -1, *maps.offsets.shape[2:])  # (B * Q, 2K, h, w)
        poses = initial_poses(centers, offsets, spec.frame)  # (B * Q, M, K, 2)
        poses = poses.reshape(len(maps.offsets), -1, *poses.shape[2:])
        poses = poses.nan_to_num(0.0, posinf=FAR, neginf=-FAR)  # no index may come from what is no number
    return losses_of_poses(model, maps, poses, keypoints=batch.keypoints, areas=batch.areas, config=config)


def losses_of_poses(
    model: LogoCap, maps: DenseMaps, poses: Tensor, *, keypoints: list[Tensor], areas: list[Tensor], config: LossConfig
) -> dict[str, Tensor]:
    """The same of given initial poses (B, N, K, 2); keypoints (P, K, 3) and areas (P,) per image, all in net px."""
    with torch.autocast(poses.device.type, enabled=False):
        kept = keep_poses(model, poses, keypoints, areas, config)
        meshes = [model.expansion_mesh(own) for own in kept.poses]
        context = local_context(maps.embedding.float(), meshes, frame=model.spec.frame)
    attraction = model.joints_mlp(context)  # in the caller's precision
    with torch.autocast(poses.device.type, enabled=False):
        attraction = attraction.float()
        oks = _oks_loss(attraction, kept.match, config)
        refined = _refined_loss(model, maps, attraction, kept, config)
    return {"oks": config.oks_factor * oks, "refined": config.refined_factor * refined}


@torch.no_grad()
def keep_poses(
    model: LogoCap, poses: Tensor, keypoints: list[Tensor], areas: list[Tensor], config: LossConfig
) -> KeptPoses:
    """Those of the poses (B, N, K, 2) whose mesh reaches a person; the first one of an image that has none.

    How many they are is the one thing that the host has to wait for.
    """
    sigmas = torch.tensor(model.spec.skeleton.sigmas).to(poses.device, non_blocking=True)
    every = poses.flatten(0, 1)
    mesh = model.expansion_mesh(every)
    mesh = mesh.view(*poses.shape[:2], *mesh.shape[1:])
    match = match_batch(mesh, keypoints, areas, sigmas=sigmas, matching=config.gt_matching)
    kept = match.matched.view(poses.shape[:2]).to("cpu", copy=True)
    kept[:, 0] |= ~kept.any(dim=1)
    index = kept.flatten().nonzero()[:, 0].to(poses.device, non_blocking=True)
    return KeptPoses(list(torch.split(every[index], kept.sum(dim=1).tolist())), match.select(index))


def _gain(match: PoseMatch) -> Tensor:
    """(N, K) what the window can gain over the initial keypoint; 0 for poses that fit nobody."""
    center = match.oks.shape[-1] // 2
    return (match.oks.amax(dim=(2, 3)) - match.oks[:, :, center, center]) * match.matched[:, None]


def _oks_loss(attraction: Tensor, match: PoseMatch, config: LossConfig) -> Tensor:
    squared = (attraction - match.oks).square()  # (N, K, n, n)
    number = match.matched.sum().clamp(min=1)
    if config.oks_weight == "gain":
        return (_gain(match)[:, :, None, None] * squared).mean(dim=(1, 2, 3)).sum() / number
    center = match.oks.shape[-1] // 2
    weight = match.oks[:, :, center, center] * (match.score * match.matched)[:, None]
    return (weight[:, :, None, None] * squared).sum() / number


def _refined_loss(model: LogoCap, maps: DenseMaps, attraction: Tensor, kept: KeptPoses, config: LossConfig) -> Tensor:
    """Weighted squared error of the refined windows; only keypoints with a weight are computed."""
    spec = model.spec.adaptation
    match, poses = kept.match, torch.cat(kept.poses)
    labelled = (match.keypoints[..., 2] > 0) & match.matched[:, None]
    weight = _gain(match) if config.oks_weight == "gain" else labelled.float()
    pose, keypoint = (weight > 0).nonzero(as_tuple=True)
    if len(pose) == 0:
        return attraction.flatten()[:0].sum()
    image = image_index(kept.poses)[pose]
    channels = maps.heatmaps.float()[:, : model.spec.keypoint_count]
    heatmaps = channels.flatten(0, 1).index_select(0, image * channels.shape[1] + keypoint)
    points = poses[pose, keypoint]  # (M, 2)
    size = min(config.refined_window or spec.global_size, spec.global_size)
    margin = (spec.global_size - size) // 2
    windows = heatmap_windows(heatmaps, points, size=size, frame=model.spec.frame)
    windows = windows * reweighing(spec, points.device)[margin : margin + size, margin : margin + size]
    kernels = attraction[pose, keypoint] / spec.local_size**2
    refined = windows if spec.prior == "kem" else dynamic_convolution(windows, kernels)
    squared_distance = _squared_distances(match.keypoints[pose, keypoint, :2] - points, size)
    target = torch.exp(-squared_distance / (2 * config.refined_target_sigma**2))
    error = (refined - target).square()
    if config.oks_weight == "similarity":
        foreground = squared_distance <= (FOREGROUND_SIGMAS * config.refined_target_sigma) ** 2
        error = torch.where(foreground, error, BACKGROUND_WEIGHT * error)
    total = (error.sum(dim=(1, 2)) * weight[pose, keypoint]).sum()
    return total / (weight.numel() * size**2)


def _squared_distances(displacement: Tensor, size: int) -> Tensor:
    """(M, size, size) squared distance of every window position from the point at `displacement` (M, 2), net px."""
    steps = torch.arange(size, dtype=torch.float32, device=displacement.device) - size // 2
    x = (steps - displacement[:, :1]).square()
    y = (steps - displacement[:, 1:]).square()
    return y[:, :, None] + x[:, None, :]
