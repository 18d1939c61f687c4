"""What a data set is in memory: images, persons and the regions that training must not look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk_training.data.faults import Fault
from posesdk_training.settings.data import DatasetConfig

__all__ = ["ImageRecord", "KeypointSet", "PersonRecord", "Region"]

Region = list[list[float]] | dict[str, Any]
"""A COCO segmentation: polygons [x0, y0, x1, y1, ...] in orig px, or a run-length encoding."""


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """One person; keypoints (K, 3) x, y, v in orig px, all v = 0 without labels; box xyxy; area in square px."""

    keypoints: NDArray[np.float32]
    box: NDArray[np.float32]
    area: float
    is_crowd: bool

    @property
    def is_labelled(self) -> bool:
        """Whether any keypoint is labelled."""
        return bool((self.keypoints[:, 2] > 0).any())


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One photo: where it lies, its persons, and the regions that training must not look at.

    Crowds and persons without keypoints are such regions; of the latter, the center of the box is a target beyond them.
    `crowd_index` is CrowdPose's measure of crowding, 0 to 1.
    """

    path: Path
    image_id: int
    persons: tuple[PersonRecord, ...]
    masked: tuple[Region, ...]
    crowd_index: float | None = None


@dataclass(frozen=True, slots=True)
class KeypointSet:
    """A data set in memory, its keypoints in the order of `skeleton`, the model's.

    `annotated` (K,) says which keypoints it labels at all; `faults` are what was repaired or left out.
    """

    config: DatasetConfig
    images: tuple[ImageRecord, ...]
    annotated: NDArray[np.bool_]
    skeleton: Skeleton
    faults: tuple[Fault, ...] = ()
