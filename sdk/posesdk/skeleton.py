"""What a model's keypoints are: names, limbs, left-right partners and OKS sigmas."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from posesdk.keypoint_names import Side, keypoint_sides

__all__ = ["COCO_17", "CROWDPOSE_14", "SKELETONS", "Skeleton"]


class Skeleton(BaseModel):
    """The keypoints of a person, in the order of a model's channels.

    `edges` are index pairs to draw and to link; `flip_pairs` are left-right partners; `sigmas` are the per-keypoint
    constants of OKS (COCO's k_i = 2 sigma_i), in units of the square root of the person's area.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "Skeleton":
        count = len(self.keypoints)
        if count == 0 or len(set(self.keypoints)) != count:
            raise ValueError(f"skeleton {self.name!r}: keypoint names must be distinct and at least one")
        if len(self.sigmas) != count or min(self.sigmas) <= 0:
            raise ValueError(f"skeleton {self.name!r}: expected {count} positive sigmas, got {len(self.sigmas)}")
        for title, pairs in (("edge", self.edges), ("flip pair", self.flip_pairs)):
            for a, b in pairs:
                if not (0 <= a < count and 0 <= b < count and a != b):
                    raise ValueError(f"skeleton {self.name!r}: {title} ({a}, {b}) is outside 0..{count - 1}")
        flipped = [index for pair in self.flip_pairs for index in pair]
        if len(set(flipped)) != len(flipped):
            raise ValueError(f"skeleton {self.name!r}: a keypoint stands in two flip pairs")
        return self

    def __eq__(self, other: object) -> bool:
        """By the fields alone: pydantic would compare the cached arrays, too, and an array has no single truth."""
        if not isinstance(other, Skeleton):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def __len__(self) -> int:
        """Number of keypoints K."""
        return len(self.keypoints)

    @cached_property
    def flip_indices(self) -> NDArray[np.intp]:
        """(K,) index of each keypoint's left-right partner, itself where it has none."""
        indices = np.arange(len(self.keypoints))
        for a, b in self.flip_pairs:
            indices[a], indices[b] = b, a
        return indices

    @cached_property
    def sides(self) -> tuple[Side | None, ...]:
        """The side of each keypoint, as its name says; None for those in the middle, and for names that do not say."""
        return keypoint_sides(self.keypoints)

    @cached_property
    def sigma_array(self) -> NDArray[np.float32]:
        """(K,) float32 sigmas."""
        return np.asarray(self.sigmas, dtype=np.float32)


COCO_17 = Skeleton(
    name="coco-17",
    keypoints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    edges=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
)
"""The 17 COCO keypoints with the published sigmas (Lin et al., COCO keypoint evaluation)."""


CROWDPOSE_14 = Skeleton(
    name="crowdpose-14",
    keypoints=(
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
        "head",
        "neck",
    ),
    edges=(
        (10, 8),
        (8, 6),
        (11, 9),
        (9, 7),
        (6, 7),
        (0, 6),
        (1, 7),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (12, 13),
        (13, 0),
        (13, 1),
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)
"""The 14 CrowdPose keypoints with the published sigmas (Li et al., CVPR 2019); `head` is its top."""

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_17, CROWDPOSE_14)}
"""The skeletons that a configuration can give by name."""
