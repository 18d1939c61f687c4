"""COCO-format keypoint annotations, read once into plain records."""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.config import DatasetConfig
from posesdk_training.data.faults import Fault

__all__ = ["ImageRecord", "KeypointSet", "PersonRecord", "Region", "keypoint_set_of", "load_keypoint_set"]

logger = logging.getLogger(__name__)

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
    """

    path: Path
    image_id: int
    persons: tuple[PersonRecord, ...]
    masked: tuple[Region, ...]


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


def load_keypoint_set(config: DatasetConfig, skeleton: Skeleton) -> KeypointSet:
    """Reads an annotation file. Crowds and persons without keypoints become masked regions, not negatives.

    Raises DataError for a file that is not COCO keypoints or whose keypoints are not the skeleton's.
    """
    if config.annotations is None or config.images is None:
        raise ValueError(f"data set {config.name!r} has no annotations and images of its own: it is read from shards")
    try:
        tree = json.loads(config.annotations.read_bytes())
    except OSError as error:
        raise DataError(
            f"data set {config.name!r}: cannot read {config.annotations}: {error.strerror}; check its path in the "
            "configuration, and data.root"
        ) from error
    except ValueError as error:
        raise _malformed(config, config.annotations, error) from error
    keypoint_set = keypoint_set_of(config, tree, skeleton, images=config.images, source=config.annotations)
    images = keypoint_set.images
    if images and not config.images.is_dir():
        raise DataError(
            f"data set {config.name!r}: there is no folder {config.images}; check its path in the configuration, and "
            "data.root"
        )
    people = sum(person.is_labelled for image in images for person in image.persons)
    logger.info("data set %s: %d images, %d persons with keypoints", config.name, len(images), people)
    return keypoint_set


def keypoint_set_of(
    config: DatasetConfig, tree: dict[str, Any], skeleton: Skeleton, *, images: Path, source: Path
) -> KeypointSet:
    """The records of a COCO tree that was read from `source`; its images lie below `images`. Raises DataError.

    Logs nothing: shards are read with it, one sample at a time.
    """
    try:
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in tree["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        located = config.model_copy(update={"annotations": source, "images": images})
        _check_categories(located, tree.get("categories", []), skeleton)
        records = tuple(
            _image(located, entry, by_image[entry["id"]], len(skeleton))
            for entry in tree["images"]
            if by_image[entry["id"]] or not config.only_with_persons
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _malformed(config, source, error) from error
    return KeypointSet(config, records, _annotated(config, skeleton), skeleton)


def _malformed(config: DatasetConfig, source: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read COCO keypoints of data set {config.name!r} from {source}: {error!r}; "
        "expected a JSON object with images, annotations and categories"
    )


def _annotated(config: DatasetConfig, skeleton: Skeleton) -> NDArray[np.bool_]:
    if config.annotated_keypoints is None:
        return np.ones(len(skeleton), dtype=np.bool_)
    unknown = set(config.annotated_keypoints) - set(skeleton.keypoints)
    if unknown:
        raise DataError(f"data set {config.name!r}: {sorted(unknown)} are not keypoints of {skeleton.name}")
    return np.array([name in config.annotated_keypoints for name in skeleton.keypoints], dtype=np.bool_)


def _check_categories(config: DatasetConfig, categories: list[dict[str, Any]], skeleton: Skeleton) -> None:
    for category in categories:
        names = tuple(category.get("keypoints", ()))
        if names and names != skeleton.keypoints:
            raise DataError(
                f"data set {config.name!r}: {config.annotations} labels {len(names)} keypoints {names[:3]}..., "
                f"the skeleton {skeleton.name} has {len(skeleton)} {skeleton.keypoints[:3]}...; "
                "give the model the set's own skeleton"
            )


def _image(config: DatasetConfig, entry: dict[str, Any], annotations: list[dict[str, Any]], count: int) -> ImageRecord:
    persons: list[PersonRecord] = []
    masked: list[Region] = []
    for annotation in annotations:
        is_crowd = bool(annotation.get("iscrowd", 0))
        keypoints = np.asarray(annotation.get("keypoints") or [0] * 3 * count, dtype=np.float32).reshape(-1, 3)
        if len(keypoints) != count:
            raise DataError(
                f"data set {config.name!r}: annotation {annotation.get('id')} of {config.annotations} has "
                f"{len(keypoints)} keypoints, the skeleton has {count}; give the model the set's own skeleton"
            )
        x, y, width, height = annotation["bbox"]
        box = np.array([x, y, x + width, y + height], dtype=np.float32)
        person = PersonRecord(keypoints, box, float(annotation.get("area", width * height)), is_crowd)
        if is_crowd or not person.is_labelled:
            masked.append(_region(annotation))
        if person.is_labelled or not is_crowd:
            persons.append(person)
    assert config.images is not None  # a folder, or the shard that holds the image
    return ImageRecord(config.images / entry["file_name"], int(entry["id"]), tuple(persons), tuple(masked))


def _region(annotation: dict[str, Any]) -> Region:
    segmentation = annotation.get("segmentation")
    if segmentation:
        return segmentation  # type: ignore[no-any-return]
    x, y, width, height = annotation["bbox"]
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
