"""One picture: from a file, an array or a PIL image to BGR."""

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.png import PNG_START, clean_png
from posesdk_runtimes.errors import SourceError

__all__ = ["decode_image", "is_pil", "read_image", "to_image"]


def read_image(path: str | os.PathLike[str], *, oriented: bool = True) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 BGR, turned as its EXIF orientation says, or as it is stored. Raises SourceError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read image {path}: {error.strerror or error}") from error
    return decode_image(data, path, oriented=oriented)


def decode_image(data: bytes, path: str | os.PathLike[str], *, oriented: bool = True) -> NDArray[np.uint8]:
    """As `read_image`, of a file's bytes; `path` says in errors where they come from."""
    if not data:
        raise SourceError(f"cannot read image {path}: the file is empty (0 bytes)")
    try:
        data = clean_png(data) if data.startswith(PNG_START) else data
    except ValueError as error:
        raise SourceError(f"cannot read image {path}: {error}; copy it again") from error
    try:
        flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise SourceError(f"cannot read image {path}: {error.err or error}") from error
    if image is None:
        raise SourceError(
            f"cannot read image {path}: it is damaged, cut off, no image, or in a format that this OpenCV cannot read"
        )
    return np.asarray(image, np.uint8)


def to_image(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of an array (BGR; grey and BGRA are converted), of a PIL image or of a picture's path.

    A PIL image is taken pixel by pixel, its EXIF orientation is not applied, so that poses fit what the caller holds.
    Raises ValueError for another shape, TypeError for another type, SourceError for a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if is_pil(image):
        return _from_pil(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"expected an image as an array, PIL image or path, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"expected an image of uint8, 0 to 255, got {image.dtype}; convert it first")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"expected an image (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey, got {image.shape}")
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _from_pil(image: Any) -> NDArray[np.uint8]:
    if image.mode == "F" or image.mode.startswith("I"):  # PIL would cut them off at 255
        raise TypeError(f"expected a PIL image of 8 bits a channel, got mode {image.mode!r}; convert it first")
    try:
        pixels = image.convert("RGB")  # reads the file, if that has not been done yet
    except (OSError, SyntaxError) as error:
        name = getattr(image, "filename", "") or "a PIL image"
        raise SourceError(f"cannot read {name}: {error}; copy it again") from error
    return np.ascontiguousarray(np.asarray(pixels, np.uint8)[..., ::-1])


def is_pil(image: Any) -> bool:
    """Whether it is an image of Pillow."""
    module = sys.modules.get("PIL.Image")  # where it is not imported, nothing can be of its class
    return module is not None and isinstance(image, module.Image)
