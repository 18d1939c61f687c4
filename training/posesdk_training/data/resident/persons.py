"""The persons of a batch of crops, moved into them; padded to the same number for every crop."""

from dataclasses import dataclass

import torch
from torch import Tensor

from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import CenterRules
from posesdk_training.data.resident.anatomical_centers import anatomical_centers
from posesdk_training.settings.samples import TargetConfig

__all__ = ["CropPersons", "move_persons"]

KINDS = 7
"""Figures of a person beside keypoints: box (4), area, crowd, labelled."""


@dataclass(frozen=True, slots=True)
class CropPersons:
    """P persons of each of B crops, net px; `exists` (B, P) is false for the padding.

    `keypoints` (B, P, K, 3) x, y, v as labelled; `inside` (B, P, K) whether they lie in the crop; `boxes` (B, P, 4)
    upright; `areas` (B, P) square net px; `sizes` (B, P) in cells, as `targets.size_measure` says; `centers`
    (B, P, Q, 2) with `has_center` (B, P, Q), and `unknown` (B, P, Q) for those that a labelled person must have
    somewhere; `is_crowd` and `is_labelled` (B, P).
    """

    keypoints: Tensor
    inside: Tensor
    boxes: Tensor
    areas: Tensor
    sizes: Tensor
    centers: Tensor
    has_center: Tensor
    unknown: Tensor
    is_crowd: Tensor
    is_labelled: Tensor
    exists: Tensor


def move_persons(
    figures: Tensor,
    exists: Tensor,
    matrices: Tensor,
    flips: Tensor,
    *,
    size: int,
    config: TrainConfig,
    flip: Tensor,
    rules: CenterRules | None = None,
) -> CropPersons:
    """`figures` (B, P, 3K + 7) as in `PersonTable`, `matrices` (B, 2, 3) orig px to net px, `flips` (B,) bool.

    `flip` (K,) int64 is the left-right partner of each keypoint. With `rules` persons have a head and a body center.
    """
    batch, number = exists.shape
    keypoints = figures[..., :-KINDS].reshape(batch, number, -1, 3)
    boxes, area, crowd, labelled = torch.split(figures[..., -KINDS:], [4, 1, 1, 1], dim=-1)
    moved = torch.cat([_transform(keypoints[..., :2], matrices[:, None, None]), keypoints[..., 2:]], dim=-1)
    moved = torch.where(flips[:, None, None, None], moved.index_select(2, flip), moved)
    inside = ((moved[..., :2] >= 0) & (moved[..., :2] < size)).all(-1)
    net_boxes = _transform_boxes(boxes, matrices)
    if rules is None:
        centers, has_center = _centers(moved, inside, net_boxes, config)
        unknown = torch.zeros_like(has_center)
    else:
        centers, has_center = anatomical_centers(moved, rules, config.targets.center_policy)
        unknown = ~has_center & (exists & (labelled[..., 0] > 0))[..., None]
    has_center = has_center & (exists & (area[..., 0] >= config.targets.min_center_area))[..., None]
    linear = matrices[:, :, :2]
    scale_squared = (linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]).abs()
    return CropPersons(
        moved,
        inside,
        net_boxes,
        area[..., 0] * scale_squared[:, None],
        _sizes(net_boxes, config.targets),
        centers,
        has_center,
        unknown,
        crowd[..., 0] > 0,
        labelled[..., 0] > 0,
        exists,
    )


def _sizes(boxes: Tensor, targets: TargetConfig) -> Tensor:
    """(B, P) sizes of persons in cells, at least one, from boxes (B, P, 4) xyxy in net px."""
    extent = boxes[..., 2:] - boxes[..., :2]
    sizes = extent.amax(-1) if targets.size_measure == "long_side" else extent.prod(-1).clamp(min=0).sqrt()
    return (sizes / 4).clamp(min=1)


def _transform(points: Tensor, matrices: Tensor) -> Tensor:
    """(..., 2) by matrices (..., 2, 3)."""
    return (matrices[..., :2] * points[..., None, :]).sum(-1) + matrices[..., 2]


def _transform_boxes(boxes: Tensor, matrices: Tensor) -> Tensor:
    """(B, P, 4) xyxy -> upright boxes around the moved corners."""
    center = _transform((boxes[..., :2] + boxes[..., 2:]) / 2, matrices[:, None])
    half = (boxes[..., 2:] - boxes[..., :2]) / 2
    reach = (matrices[:, None, :, :2].abs() * half[..., None, :]).sum(-1)
    return torch.cat([center - reach, center + reach], dim=-1)


def _centers(keypoints: Tensor, inside: Tensor, boxes: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """(B, P, 1, 2) and whether there is one (B, P, 1); as `KeypointDataset` takes them."""
    targets, names = config.targets, config.model.skeleton.keypoints
    use = keypoints[..., 2] > 0
    if targets.center_from_visible:
        use = use & inside
    if targets.center_keypoints:
        defining = [name in targets.center_keypoints for name in names]
        chosen = torch.stack([use[..., k] & defining[k] for k in range(len(names))], dim=-1)
        use = torch.where(chosen.sum(-1, keepdim=True) >= 2, chosen, use)
    number = use.sum(-1)
    points = (keypoints[..., :2] * use[..., None]).sum(-2) / number.clamp(min=1)[..., None]
    if targets.center_from_visible:
        return points[:, :, None], (number >= 2)[..., None]
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    points = torch.where(number[..., None] > 0, points, middle)
    return points[:, :, None], torch.ones_like(number, dtype=torch.bool)[..., None]
