"""Which person each initial pose belongs to, and how good every position around its keypoints would be.

Targets of the adaptation branch (LOGO-CAP, arXiv 2109.03622, section 3.5).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["PoseMatch", "match_poses"]

KEPT_OKS = 0.5
"""A pose is trained on if some position of its mesh reaches this OKS."""
MIN_SPREAD = 1e-6
"""Smallest denominator of the OKS exponent, as published."""
CLAMPED_OKS = 0.5
"""Smallest similarity in the paper's matching score."""


@dataclass(frozen=True, slots=True)
class PoseMatch:
    """What N poses are compared with; n is the side of the mesh.

    `oks` (N, K, n, n) similarity of every mesh position with the person's keypoint, 0 where that is unlabelled;
    `person_oks` (N, n, n) its mean over the labelled keypoints; `keypoints` (N, K, 3) of the person; `score` (N,) of
    the match; `matched` (N,) whether the window reaches an OKS of 0.5.
    """

    oks: Tensor
    person_oks: Tensor
    keypoints: Tensor
    score: Tensor
    matched: Tensor

    def select(self, index: Tensor) -> "PoseMatch":
        """The poses of `index`."""
        return PoseMatch(
            self.oks[index], self.person_oks[index], self.keypoints[index], self.score[index], self.matched[index]
        )


def match_poses(
    mesh: Tensor,
    keypoints: Tensor,
    areas: Tensor,
    *,
    sigmas: Tensor,
    matching: Literal["window_max", "clamped_mean"],
) -> PoseMatch:
    """Gives each of N poses of one image, by its mesh (N, n, n, K, 2), a person among keypoints (G, K, 3), areas (G,).

    All are in one frame, no matter which: OKS does not change with it. G may be 0.
    """
    if len(keypoints) == 0:  # one person without keypoints, which nothing can match
        keypoints, areas = mesh.new_zeros(1, mesh.shape[3], 3), mesh.new_ones(1)
    squared = (mesh[:, :, :, None] - keypoints[:, :, :2]).square().sum(-1)  # (N, n, n, G, K)
    spread = (2 * (2 * sigmas).square() * areas[:, None]).clamp(min=MIN_SPREAD)  # (G, K)
    labelled = keypoints[..., 2] > 0  # (G, K)
    oks = torch.exp(-squared / spread) * labelled
    if matching == "window_max":
        scores = _labelled_mean(oks.amax(dim=(1, 2)), labelled)  # (N, G)
    else:
        scores = oks.clamp(min=CLAMPED_OKS).mean(dim=(1, 2, 4))
    score, person = scores.max(dim=1)
    own = oks[torch.arange(len(mesh), device=mesh.device), :, :, person]  # (N, n, n, K)
    person_oks = _labelled_mean(own, labelled[person][:, None, None])
    matched = person_oks.amax(dim=(1, 2)) >= KEPT_OKS
    return PoseMatch(own.permute(0, 3, 1, 2), person_oks, keypoints[person], score, matched)


def _labelled_mean(oks: Tensor, labelled: Tensor) -> Tensor:
    return (oks * labelled).sum(-1) / labelled.sum(-1).clamp(min=1)
