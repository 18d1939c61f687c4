"""What a data set holds, in numbers."""

from dataclasses import dataclass

import numpy as np

from posesdk_training.data.coco import KeypointSet
from posesdk_training.data.faults import Fault

__all__ = ["KeypointCount", "SetStatistics", "SizeHistogram", "describe"]

SMALL, LARGE = 32.0**2, 96.0**2
"""Square px; where COCO's person sizes end and begin."""


@dataclass(frozen=True, slots=True)
class KeypointCount:
    """How often one keypoint is labelled: `occluded` (v = 1) and `visible` (v = 2).

    `annotated` is False for a keypoint that the set does not label at all; its heatmap is masked.
    """

    name: str
    occluded: int
    visible: int
    annotated: bool = True


@dataclass(frozen=True, slots=True)
class SizeHistogram:
    """Labelled persons by annotation area in the original image: up to 32^2 square px, up to 96^2, larger."""

    small: int
    medium: int
    large: int


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Counts of one data set, as it is used for training.

    `images_without_people` have no person annotation at all; `labelled` persons have at least one keypoint and are no
    crowd, `unlabelled` ones none; `crowds` are regions. Both of the latter are masked. Images of a set without
    annotations count as none of these. `keypoints` stand in the order of the model's skeleton. `faults` were repaired
    or left out.
    """

    name: str
    images: int
    images_without_people: int
    labelled: int
    unlabelled: int
    crowds: int
    keypoints: tuple[KeypointCount, ...]
    sizes: SizeHistogram
    faults: tuple[Fault, ...] = ()


def describe(keypoint_set: KeypointSet) -> SetStatistics:
    """The statistics of a data set in memory."""
    images = keypoint_set.images
    persons = [person for image in images for person in image.persons]
    labelled = [person for person in persons if person.is_labelled and not person.is_crowd]
    unlabelled = sum(not person.is_labelled for person in persons)
    names = keypoint_set.skeleton.keypoints
    seen = np.array([person.keypoints[:, 2] for person in labelled], dtype=np.float32).reshape(-1, len(names))
    visible = (seen >= 2).sum(0)
    occluded = (seen > 0).sum(0) - visible
    areas = np.array([person.area for person in labelled])
    small, large = int((areas <= SMALL).sum()), int((areas > LARGE).sum())
    return SetStatistics(
        name=keypoint_set.config.name,
        images=len(images),
        images_without_people=sum(not image.persons and not image.masked for image in images),
        labelled=len(labelled),
        unlabelled=unlabelled,
        crowds=sum(len(image.masked) for image in images) - unlabelled if keypoint_set.config.is_labelled else 0,
        keypoints=tuple(
            KeypointCount(name, int(hidden), int(shown), bool(annotated))
            for name, hidden, shown, annotated in zip(names, occluded, visible, keypoint_set.annotated, strict=True)
        ),
        sizes=SizeHistogram(small, len(labelled) - small - large, large),
        faults=keypoint_set.faults,
    )
