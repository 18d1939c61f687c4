"""Random crops for a whole batch at once, by the laws of `augment.sample_placement`; on the host."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posesdk_training.data.augment import Placement
from posesdk_training.data.resident.photos import LEVELS, reduction
from posesdk_training.data.resident.store import PersonTable, PhotoTable, ResidentStore
from posesdk_training.data.views import enlarged_matrix, zoomed_matrix
from posesdk_training.settings.samples import AugmentConfig, CropConfig

__all__ = ["Crops", "crops_of", "sample_crops"]

Floats = NDArray[np.float64]
MIN_EXTENT = 20.0
"""Orig px below which a person counts as this large."""


@dataclass(frozen=True, slots=True)
class Crops:
    """B crops of side `size` net px: `photos` (B,); `matrices` (B, 2, 3) orig px to net px, the flip included;
    `flips` (B,) bool; `scales` (B,) net px per orig px."""

    photos: NDArray[np.int64]
    matrices: Floats
    flips: NDArray[np.bool_]
    scales: Floats
    size: int

    def zoomed(self, zoom: float) -> "Crops":
        """As `views.zoomed`, all of them."""
        matrices = zoomed_matrix(self.matrices, zoom, self.size)
        return replace(self, matrices=matrices, scales=self.scales / zoom)

    def enlarged(self, factor: float) -> "Crops":
        """As `views.enlarged`, all of them."""
        matrices = enlarged_matrix(self.matrices, factor)
        return replace(self, matrices=matrices, scales=self.scales * factor, size=round(factor * self.size))

    def sources(self, table: PhotoTable) -> tuple[NDArray[np.int64], Floats]:
        """Where each crop's pixels come from: (B, 3) start, width, height of a level; (B, 2, 3) net px to its px."""
        wanted = reduction(self.scales)
        kept = table.sizes[self.photos, :, 0] > 0  # (B, L)
        usable = kept & (np.array(LEVELS) <= wanted[:, None])
        level = len(LEVELS) - 1 - usable[:, ::-1].argmax(1)
        sizes = table.sizes[self.photos, level]
        ratio = sizes / table.sizes[self.photos, 0]  # level px per orig px, (B, 2)
        inverse = np.linalg.inv(self.matrices[:, :, :2])
        offset = -(inverse @ self.matrices[:, :, 2:])
        to_level = np.concatenate([inverse, offset], axis=2) * ratio[:, :, None]
        to_level[:, :, 2] += 0.5 * ratio - 0.5  # pixel centers, not indices, scale
        return np.concatenate([table.starts[self.photos, level][:, None], sizes], axis=1), to_level


def crops_of(photos: NDArray[np.int64], placements: list[Placement]) -> Crops:
    """Given placements as crops."""
    return Crops(
        photos,
        np.stack([placement.flipped_matrix for placement in placements]),
        np.array([placement.flip for placement in placements]),
        np.array([placement.scale for placement in placements]),
        placements[0].size,
    )


def sample_crops(
    rng: np.random.Generator,
    store: ResidentStore,
    photos: NDArray[np.int64],
    *,
    size: int,
    config: AugmentConfig,
) -> Crops:
    """A random crop of side `size` net px of each photo."""
    number = len(photos)
    limits = store.photos.sizes[photos, 0].astype(np.float64)  # (B, 2) width, height
    centers, scales = _person_crops(rng, store.persons, photos, limits, size=size, crop=config.crop)
    turned = rng.random(number) < config.rotation_probability
    if config.rotation_distribution == "uniform":
        angles = rng.uniform(-config.rotation, config.rotation, number)
    else:
        angles = np.clip(rng.normal(0.0, config.rotation, number), -3 * config.rotation, 3 * config.rotation)
    radians = np.deg2rad(np.where(turned, angles, 0.0))
    flips = rng.random(number) < config.flip_probability
    return Crops(photos, _matrices(centers, radians, scales, flips, size), flips, scales, size)


def _person_crops(
    rng: np.random.Generator,
    persons: PersonTable,
    photos: NDArray[np.int64],
    limits: Floats,
    *,
    size: int,
    crop: CropConfig,
) -> tuple[Floats, Floats]:
    """Centers (B, 2) orig px and scales (B,) around a random labelled person, or anywhere."""
    number, long_sides = len(photos), limits.max(1)
    boxes, has_person = _random_boxes(rng, persons, photos)
    extent = boxes[:, 2:] - boxes[:, :2]
    person = np.maximum(np.maximum(extent[:, 0], 0.8 * extent[:, 1]), MIN_EXTENT)
    low, high = np.log(crop.person_size[0] * size), np.log(crop.person_size[1] * size)
    near = np.clip(np.exp(rng.uniform(low, high, number)) / person, 0.9 * size / long_sides, crop.max_enlargement)
    freedom = 0.8 * np.maximum(0.0, size / near - 0.5 * person)
    near_center = (boxes[:, :2] + boxes[:, 2:]) / 2 + rng.uniform(-0.5, 0.5, (number, 2)) * freedom[:, None]
    far = size / long_sides * np.exp(rng.uniform(-0.05, 1.2, number))
    far_center = rng.uniform(0, 1, (number, 2)) * limits
    focused = has_person & (rng.random(number) < crop.focus)
    scales = np.where(focused, near, far)
    centers = np.where(focused[:, None], near_center, far_center)
    reach = (0.9 * size / scales / 2)[:, None]
    inside = np.clip(centers, reach, np.maximum(limits - reach, reach))
    return np.where(limits > 2 * reach, inside, limits / 2), scales


def _random_boxes(
    rng: np.random.Generator, persons: PersonTable, photos: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """(B, 4) box of a random labelled person of each photo, and (B,) whether there is one."""
    counts = persons.labelled_counts[photos]
    drawn = rng.integers(np.maximum(counts, 1))
    exists = counts > 0
    boxes = np.tile(np.array([0.0, 0.0, MIN_EXTENT, MIN_EXTENT]), (len(photos), 1))
    boxes[exists] = persons.boxes[persons.labelled[(persons.labelled_first[photos] + drawn)[exists]]]
    return boxes, exists


def _matrices(centers: Floats, radians: Floats, scales: Floats, flips: NDArray[np.bool_], size: int) -> Floats:
    """(B, 2, 3) that take centers (pixel edges) to the middle of the output, mirrored where `flips` says so."""
    cosine, sine = scales * np.cos(radians), scales * np.sin(radians)
    linear = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)  # (B, 2, 2)
    offset = size / 2.0 - 0.5 - (linear @ (centers - 0.5)[:, :, None])[:, :, 0]
    matrices = np.concatenate([linear, offset[:, :, None]], axis=2)
    matrices[flips, 0] *= -1
    matrices[flips, 0, 2] += size - 1.0
    return np.asarray(matrices, np.float64)
