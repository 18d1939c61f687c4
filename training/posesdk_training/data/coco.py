"""Data sets in COCO's annotation format, or in one that becomes it, read once into plain records."""

import json
import logging
from pathlib import Path

from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.annotations import annotated_keypoints, keypoint_set_of, malformed
from posesdk_training.data.faults import warn
from posesdk_training.data.records import ImageRecord, KeypointSet, PersonRecord, Region
from posesdk_training.data.unlabelled import EVERYWHERE, list_photos
from posesdk_training.settings.data import DatasetConfig

__all__ = ["ImageRecord", "KeypointSet", "PersonRecord", "Region", "keypoint_set_of", "load_keypoint_set"]

logger = logging.getLogger(__name__)


def load_keypoint_set(config: DatasetConfig, skeleton: Skeleton) -> KeypointSet:
    """Reads an annotation file. Crowds and persons without keypoints become masked regions, not negatives.

    Keypoints are put into the order of the model's `skeleton` by their names; those that the set does not have are
    masked. Images of a set without annotations are masked as a whole. Faults of the file are repaired or left out with
    one warning a kind; raises DataError for a file of another kind, or one that shares no keypoint with the model.
    """
    if config.images is not None and not config.is_labelled:
        return _unlabelled_set(config, config.images, skeleton)
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
        raise malformed(config, config.annotations, error) from error
    keypoint_set = keypoint_set_of(config, tree, skeleton, images=config.images, source=config.annotations)
    images = keypoint_set.images
    if images and not config.images.is_dir():
        raise DataError(
            f"data set {config.name!r}: there is no folder {config.images}; check its path in the configuration, and "
            "data.root"
        )
    warn(f"data set {config.name}", keypoint_set.faults)
    people = sum(person.is_labelled for image in images for person in image.persons)
    logger.info("data set %s: %d images, %d persons with keypoints", config.name, len(images), people)
    return keypoint_set


def _unlabelled_set(config: DatasetConfig, folder: Path, skeleton: Skeleton) -> KeypointSet:
    photos = list_photos(config.name, folder)
    logger.info("data set %s: %d images without annotations", config.name, len(photos))
    images = tuple(ImageRecord(path, index, (), (EVERYWHERE,)) for index, path in enumerate(photos))
    return KeypointSet(config, images, annotated_keypoints(config, skeleton), skeleton)
