"""Rendered people pasted into photos: they hide real ones, and are supervised as people themselves.

After Hoffmann et al., Learning to Train with Synthetic Humans (GCPR 2019), with the keypoints that rendering gives.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.augment import Placement
from posesdk_training.data.coco import ImageRecord, PersonRecord, load_keypoint_set
from posesdk_training.settings.data import DatasetConfig
from posesdk_training.settings.samples import OccluderConfig

__all__ = ["Occluders"]

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

TRIES = 4
MAX_COVERED = 0.7
"""Of a person's labelled keypoints; a cutout that covers more of anybody is put elsewhere."""


class Occluders:
    """The cutouts of `posesdk-train synthesize --cutouts`. Raises DataError for a folder that holds none."""

    def __init__(self, config: OccluderConfig, skeleton: Skeleton) -> None:
        self._config = config
        self._flip_indices = skeleton.flip_indices
        folder = DatasetConfig(
            name="occluders", annotations=config.folder / "keypoints.json", images=config.folder / "images"
        )
        self._cutouts = [image for image in load_keypoint_set(folder, skeleton).images if image.persons]
        if not self._cutouts:
            raise DataError(
                f"there are no cutouts in {config.folder}; make some with posesdk-train synthesize --cutouts"
            )

    def paste(
        self, rng: np.random.Generator, pixels: Image, record: ImageRecord, placement: Placement
    ) -> tuple[Image, ImageRecord]:
        """With the configured probability, a sample (size, size, 3) with one more person, who is in the record too.

        Covered keypoints of the others become v = 1. Where no place leaves enough of everybody, nothing is changed.
        """
        if rng.random() >= self._config.probability:
            return pixels, record
        chosen = self._cutouts[rng.integers(len(self._cutouts))]
        layer, person = self._prepared(rng, chosen, placement.size)
        for _ in range(TRIES):
            shift = _place(rng, layer.shape[:2], record.persons, placement)
            move = np.concatenate([np.eye(2), shift[:, None]], axis=1)
            pasted = cv2.warpAffine(layer, move, (placement.size, placement.size), flags=cv2.INTER_LINEAR)
            opacity = pasted[..., 3] / np.float32(255)
            persons = [_behind(other, opacity, placement) for other in record.persons]
            if any(_too_hidden(before, after) for before, after in zip(record.persons, persons, strict=True)):
                continue
            front = self._in_photo(person, shift, placement)
            mixed = pixels * (1 - opacity[..., None]) + pasted[..., :3]
            return np.clip(mixed, 0, 255).astype(np.uint8), replace(record, persons=(*persons, front))
        return pixels, record

    def _prepared(self, rng: np.random.Generator, cutout: ImageRecord, size: int) -> tuple[Image, PersonRecord]:
        """A cutout at its size in the sample, BGR times opacity and opacity (h, w, 4), and its person in its px."""
        image = _read(cutout.path)
        person = cutout.persons[0]
        keypoints, box = person.keypoints.astype(np.float32), person.box
        if rng.random() < 0.5:
            image = image[:, ::-1]
            last = image.shape[1] - 1
            keypoints = keypoints[self._flip_indices]
            keypoints[:, 0] = last - keypoints[:, 0]
            box = np.array([last - box[2], box[1], last - box[0], box[3]], dtype=np.float32)
        low, high = np.log(self._config.height)
        scale = float(np.exp(rng.uniform(low, high))) * size / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        opacity = image[..., 3:] / np.float32(255)
        gain = np.float32(rng.uniform(0.6, 1.2))
        layer = np.concatenate([image[..., :3] * opacity * gain, image[..., 3:]], axis=2)
        layer = np.minimum(layer, image[..., 3:])  # no brighter than its opacity allows
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(layer, (width, height), interpolation=interpolation)
        # Pixel indices lie half a pixel inside the pixel's edges.
        keypoints = keypoints.copy()
        keypoints[:, :2] = (keypoints[:, :2] + 0.5) * scale - 0.5
        moved = PersonRecord(keypoints, (box * scale).astype(np.float32), person.area * scale**2, False)
        return resized.astype(np.uint8), moved

    def _in_photo(self, person: PersonRecord, shift: Floats, placement: Placement) -> PersonRecord:
        """A pasted person as an annotation of the photo from which the sample was cut."""
        matrix = placement.flipped_matrix
        inverse = np.linalg.inv(matrix[:, :2])
        keypoints = person.keypoints.copy()
        keypoints[:, :2] = (keypoints[:, :2] + shift - matrix[:, 2]) @ inverse.T
        if placement.flip:  # sides are exchanged once more when the sample is made
            keypoints = keypoints[self._flip_indices]
        center = (person.box[:2] + person.box[2:]) / 2 + shift
        middle = (center - matrix[:, 2]) @ inverse.T
        reach = (person.box[2:] - person.box[:2]) / (2 * placement.scale)
        box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
        return PersonRecord(keypoints.astype(np.float32), box, person.area / placement.scale**2, False)


def _read(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise DataError(f"cannot use the cutout {path}: no image with an alpha channel; make the folder anew")
    return np.asarray(image, dtype=np.uint8)


def _place(
    rng: np.random.Generator, size: tuple[int, int], persons: tuple[PersonRecord, ...], placement: Placement
) -> Floats:
    """(2,) net px of the cutout's top-left pixel: mostly near somebody."""
    middle = rng.uniform(0, placement.size, 2)
    if persons and rng.random() < 0.8:
        box = persons[rng.integers(len(persons))].box.astype(np.float64)
        center = placement.flipped_matrix[:, :2] @ ((box[:2] + box[2:]) / 2) + placement.flipped_matrix[:, 2]
        middle = center + rng.normal(0, 0.45, 2) * (box[2:] - box[:2]) * placement.scale
        middle = np.clip(middle, 0, placement.size)
    return np.round(middle - np.array([size[1], size[0]]) / 2)


def _behind(person: PersonRecord, opacity: NDArray[np.float32], placement: Placement) -> PersonRecord:
    """A person with v = 1 where the sample's `opacity` (size, size) covers a keypoint."""
    matrix = placement.flipped_matrix
    columns, rows = np.round(person.keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]).astype(np.int64).T
    size = placement.size
    inside = (columns >= 0) & (rows >= 0) & (columns < size) & (rows < size) & (person.keypoints[:, 2] > 0)
    covered = inside & (opacity[rows.clip(0, size - 1), columns.clip(0, size - 1)] > 0.5)
    keypoints = person.keypoints.copy()
    keypoints[covered, 2] = 1
    return replace(person, keypoints=keypoints)


def _too_hidden(before: PersonRecord, after: PersonRecord) -> bool:
    labelled = before.keypoints[:, 2] > 0
    hidden = (before.keypoints[:, 2] == 2) & (after.keypoints[:, 2] == 1)
    return bool(labelled.any() and hidden.sum() > MAX_COVERED * labelled.sum())
