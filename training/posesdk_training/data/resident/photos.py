"""Photos of a run before they are resident: decoded, with the regions that training must not look at."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.images import read_image
from posesdk_training.data.records import ImageRecord, KeypointSet, PersonRecord, Region

__all__ = ["LEVELS", "DecodedPhoto", "PhotoSource", "folder_sources", "pack_levels", "rasterise"]

logger = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]

LEVELS = (1, 2, 3, 4, 6, 8)
"""Whole factors by which a photo is kept reduced, for crops that shrink it: as `augment.warp_image` averages."""


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """`pixels` (H, W, 3) uint8 BGR; `mask` (H, W) uint8, 255 where training must not look, None where nowhere."""

    pixels: Image
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class PhotoSource:
    """A photo of set number `set_index` that can be decoded, in any thread; `decode` raises SourceError."""

    set_index: int
    name: str
    persons: tuple[PersonRecord, ...]
    decode: Callable[[], DecodedPhoto]


def folder_sources(keypoint_set: KeypointSet, set_index: int) -> list[PhotoSource]:
    """The photos of an annotation file with an image folder."""
    name = keypoint_set.config.name
    return [
        PhotoSource(set_index, f"{name}/{record.path.name}", record.persons, _reader(record.path, record))
        for record in keypoint_set.images
    ]


def _reader(path: Path, record: ImageRecord) -> Callable[[], DecodedPhoto]:
    def decode() -> DecodedPhoto:
        pixels = read_image(path, oriented=False)  # as the annotations are
        return DecodedPhoto(pixels, rasterise(record.masked, pixels.shape[:2]))

    return decode


def rasterise(regions: Sequence[Region], size: tuple[int, int]) -> Mask | None:
    """(H, W) uint8 of `size`, 255 in the regions; None without regions."""
    if not regions:
        return None
    mask = np.zeros(size, dtype=np.uint8)
    for region in regions:
        if isinstance(region, dict):
            covered = _run_lengths(region)[: size[0], : size[1]]
            mask[: covered.shape[0], : covered.shape[1]][covered > 0] = 255
            continue
        for polygon in region:
            points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
            cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 255)
    return mask


def _run_lengths(encoding: dict[str, object]) -> Mask:
    from pycocotools import mask as coco_mask  # not on a machine that is given packs alone

    if isinstance(encoding["counts"], list):
        encoding = coco_mask.frPyObjects(encoding, *encoding["size"])  # type: ignore[misc]
    return np.asarray(coco_mask.decode(encoding), np.uint8)


def pack_levels(photo: DecodedPhoto, smallest_crop: int) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """A photo with its reduced copies: (n, 4) uint8 R, G, B, mask, one level after the other, and their (w, h).

    Kept are the levels that crops of `smallest_crop` net px and more can ask for.
    """
    height, width = photo.pixels.shape[:2]
    mask = np.zeros((height, width), np.uint8) if photo.mask is None else photo.mask
    joined = np.dstack([photo.pixels[..., ::-1], mask])
    blocks, sizes = [], []
    for factor in LEVELS:
        if factor > strongest_factor(max(height, width), smallest_crop):
            break
        size = (-(-width // factor), -(-height // factor))
        level = joined if factor == 1 else cv2.resize(joined, size, interpolation=cv2.INTER_AREA)
        blocks.append(np.asarray(level, np.uint8).reshape(-1, 4))
        sizes.append(size)
    return np.concatenate(blocks), sizes


def reduction(scale: NDArray[np.float64]) -> NDArray[np.int64]:
    """The whole factor by which a photo is averaged down before a crop of `scale` net px per orig px is taken."""
    return np.where(scale < 0.6, np.maximum(2, np.round(0.7 / scale)), 1).astype(np.int64)


def strongest_factor(long_side: int, smallest_crop: int) -> int:
    """The largest reduction that a random crop can ask for: the whole photo in 0.9 of the smallest crop."""
    return int(reduction(np.array([0.9 * smallest_crop / long_side]))[0])
