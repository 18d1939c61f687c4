"""One image with its annotations as it goes into a shard: byte for byte, or made smaller."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from posesdk.images import decode_image
from posesdk_runtimes.errors import SourceError
from posesdk_training.files import encode_picture

__all__ = ["Resize", "read_sample", "scale_annotation"]

Tree = dict[str, Any]

ENCODINGS: dict[str, tuple[str, int]] = {
    ".jpg": ("jpg", cv2.IMWRITE_JPEG_QUALITY),
    ".jpeg": ("jpg", cv2.IMWRITE_JPEG_QUALITY),
    ".webp": ("webp", cv2.IMWRITE_WEBP_QUALITY),
}


@dataclass(frozen=True, slots=True)
class Resize:
    """Images whose long side is more than `long_side` px are made so small, with this quality (1 to 100)."""

    long_side: int
    quality: int = 90


def read_sample(path: Path, entry: Tree, annotations: list[Tree], resize: Resize | None) -> Tree:
    """The image file's bytes under its suffix, and under "json" the image entry and its annotations.

    Raises SourceError for an image that cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read image {path}: {error.strerror or error}") from error
    image = decode_image(data, path, oriented=False)
    suffix = path.suffix.lower()
    if resize is None or max(image.shape[:2]) <= resize.long_side:
        name = ENCODINGS[suffix][0] if suffix in ENCODINGS else suffix.lstrip(".") or "jpg"
        return {name: data, "json": {"image": entry, "annotations": annotations}}
    height, width = image.shape[:2]
    scale = resize.long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    name, flag = ENCODINGS.get(suffix, ENCODINGS[".jpg"])
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = encode_picture(f".{name}", np.asarray(smaller, np.uint8), (flag, resize.quality))
    ratio = (size[0] / width, size[1] / height)
    scaled = [scale_annotation(annotation, ratio, size) for annotation in annotations]
    resized = entry | {"width": size[0], "height": size[1]}
    return {name: encoded, "json": {"image": resized, "annotations": scaled}}


def scale_annotation(annotation: Tree, ratio: tuple[float, float], size: tuple[int, int]) -> Tree:
    """A COCO annotation in an image that was scaled by `ratio` (x, y) to `size` (width, height) px.

    Keypoints are indices of pixels, whose centers lie half a pixel inside; boxes and polygons are pixels' edges.
    """
    x, y = ratio
    result = dict(annotation)
    if annotation.get("keypoints"):
        points = np.asarray(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        moved = (points[:, :2] + 0.5) * ratio - 0.5
        points[:, :2] = np.where(points[:, 2:] > 0, moved, points[:, :2])
        result["keypoints"] = [_plain(value) for value in points.ravel()]
    if annotation.get("bbox"):
        left, top, width, height = annotation["bbox"]
        result["bbox"] = [_plain(left * x), _plain(top * y), _plain(width * x), _plain(height * y)]
    if annotation.get("area") is not None:
        result["area"] = _plain(annotation["area"] * x * y)
    if annotation.get("segmentation"):
        result["segmentation"] = _scale_region(annotation["segmentation"], ratio, size)
    return result


def _scale_region(region: list[list[float]] | Tree, ratio: tuple[float, float], size: tuple[int, int]) -> Any:
    if isinstance(region, list):
        return [[_plain(value * ratio[index % 2]) for index, value in enumerate(polygon)] for polygon in region]
    encoding = region
    if isinstance(encoding["counts"], list):
        encoding = coco_mask.frPyObjects(encoding, *encoding["size"])
    pixels = np.asarray(cv2.resize(coco_mask.decode(encoding), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    scaled = coco_mask.encode(np.asfortranarray(pixels))
    return {"size": list(scaled["size"]), "counts": scaled["counts"].decode("ascii")}


def _plain(value: float) -> float:
    """Short in JSON: a hundredth of a pixel is enough."""
    return round(float(value), 2)
