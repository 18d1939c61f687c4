"""Which person each initial pose belongs to, and how good every position around its keypoints would be.

Targets of the adaptation branch (LOGO-CAP, arXiv 2109.03622, section 3.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PoseMatch", "match_batch", "match_poses"]

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


Matching = Literal["window_max", "clamped_mean"]


def match_poses(mesh: Tensor, keypoints: Tensor, areas: Tensor, *, sigmas: Tensor, matching: Matching) -> PoseMatch:
    """Gives each of N poses of one image, by its mesh (N, n, n, K, 2), a person among keypoints (G, K, 3), areas (G,).

    The mesh is one of `expansion_mesh`. All are in one frame, no matter which: OKS does not change with it. G may be 0.
    """
    return match_batch(mesh[None], [keypoints], [areas], sigmas=sigmas, matching=matching)


def match_batch(
    mesh: Tensor, keypoints: Sequence[Tensor], areas: Sequence[Tensor], *, sigmas: Tensor, matching: Matching
) -> PoseMatch:
    """The same of B images at once: mesh (B, N, n, n, K, 2), keypoints (G_i, K, 3) and areas (G_i,) of each.

    Gives B * N poses. A person without keypoints matches nothing, as nobody does.
    """
    persons, person_areas = _padded(keypoints, areas)  # (B, G, K, 3), (B, G)
    spread = (2 * (2 * sigmas).square() * person_areas[..., None]).clamp(min=MIN_SPREAD)  # (B, G, K)
    labelled = persons[..., 2] > 0
    if matching == "window_max":
        scores = _best_in_window(mesh, persons, spread, labelled)
    else:
        scores = _clamped_means(mesh, persons, spread, labelled)
    score, person = scores.max(dim=2)  # (B, N)
    own, own_spread = _of_person(persons, person), _of_person(spread, person)  # (B, N, K, 3), (B, N, K)
    own_labelled = own[..., 2] > 0
    squared = (mesh - own[:, :, None, None, :, :2]).square().sum(-1)  # (B, N, n, n, K)
    oks = torch.exp(-squared / own_spread[:, :, None, None]) * own_labelled[:, :, None, None]
    person_oks = _labelled_mean(oks, own_labelled[:, :, None, None])
    matched = person_oks.amax(dim=(2, 3)) >= KEPT_OKS
    fields = (oks.permute(0, 1, 4, 2, 3), person_oks, own, score, matched)
    return PoseMatch(*(field.flatten(0, 1) for field in fields))


def _padded(keypoints: Sequence[Tensor], areas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All images get as many persons as the most crowded one, at least one; those added have no keypoints."""
    number = max(1, *(len(points) for points in keypoints))
    if any(len(points) < number for points in keypoints):
        keypoints = [F.pad(points, (0, 0, 0, 0, 0, number - len(points))) for points in keypoints]
        areas = [F.pad(own, (0, number - len(own)), value=1.0) for own in areas]
    return torch.stack(list(keypoints)).float(), torch.stack(list(areas)).float()


def _best_in_window(mesh: Tensor, persons: Tensor, spread: Tensor, labelled: Tensor) -> Tensor:
    """(B, N, G) mean over the labelled keypoints of the best similarity that the window reaches.

    Columns and rows of a mesh are independent, so the nearest position has the nearest column and the nearest row.
    """
    columns, rows = mesh[:, :, 0, :, :, 0], mesh[:, :, :, 0, :, 1]  # (B, N, n, K)
    squared = sum(
        (places[:, :, :, None] - persons[:, None, None, ..., axis]).square().amin(dim=2)
        for axis, places in enumerate((columns, rows))
    )  # (B, N, G, K)
    return _labelled_mean(torch.exp(-squared / spread[:, None]), labelled[:, None])


def _clamped_means(mesh: Tensor, persons: Tensor, spread: Tensor, labelled: Tensor) -> Tensor:
    """(B, N, G) mean similarity of all positions and keypoints, each at least 0.5."""
    scores = []
    for person in range(persons.shape[1]):
        squared = (mesh - persons[:, person, None, None, None, :, :2]).square().sum(-1)  # (B, N, n, n, K)
        oks = torch.exp(-squared / spread[:, person, None, None, None]) * labelled[:, person, None, None, None]
        scores.append(oks.clamp(min=CLAMPED_OKS).mean(dim=(2, 3, 4)))
    return torch.stack(scores, dim=2)


def _of_person(values: Tensor, person: Tensor) -> Tensor:
    """(B, G, ...) at the persons (B, N) -> (B, N, ...)."""
    index = person.view(*person.shape, *(1,) * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def _labelled_mean(oks: Tensor, labelled: Tensor) -> Tensor:
    return (oks * labelled).sum(-1) / labelled.sum(-1).clamp(min=1)
