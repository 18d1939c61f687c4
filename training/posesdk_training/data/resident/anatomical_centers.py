"""Head and body centers of a whole batch at once, equal to those of `posesdk_training.data.anatomical_centers`."""

import torch
from torch import Tensor

from posesdk_training.data.anatomical_centers import CenterPolicy, CenterRules

__all__ = ["anatomical_centers"]


def anatomical_centers(keypoints: Tensor, rules: CenterRules, policy: CenterPolicy) -> tuple[Tensor, Tensor]:
    """Head and body (B, P, 2, 2) of keypoints (B, P, K, 3) x, y, v, and whether they are known (B, P, 2)."""
    labelled = keypoints[..., 2] > 0
    points = keypoints[..., :2] * labelled[..., None]
    shoulders, of_shoulders = _mean(points, labelled, rules.shoulders)
    hips, of_hips = _mean(points, labelled, rules.hips)
    _, of_head = _mean(points, labelled, rules.head)
    has_head, has_body = of_head > 0, (of_shoulders > 0) & (of_hips > 0)
    body = (shoulders + hips) / 2
    if policy == "fallback":
        everything, number = _mean(points, labelled, tuple(range(labelled.shape[-1])))
        for applies, candidate in (
            (of_shoulders == 2, shoulders),
            (of_hips == 2, hips),
            (~has_head & (number > 0), everything),
        ):
            body = torch.where((applies & ~has_body)[..., None], candidate, body)
            has_body = has_body | applies
    head, _ = _mean(points, labelled, (*rules.head, *rules.neck))
    return torch.stack([head, body], dim=2), torch.stack([has_head, has_body], dim=2)


def _mean(points: Tensor, labelled: Tensor, members: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(B, P, 2) mean of the labelled ones of some keypoints, and how many they are (B, P)."""
    number = torch.stack([labelled[..., k] for k in members]).sum(0)
    total = torch.stack([points[..., k, :] for k in members]).sum(0)
    return total / number.clamp(min=1)[..., None], number
