"""Geometric and photometric augmentation of one sample, in numpy and OpenCV."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.spec import Frame
from posesdk_training.data.records import PersonRecord
from posesdk_training.settings.samples import AugmentConfig, CropConfig

__all__ = ["Placement", "jitter_colors", "sample_placement", "transform_boxes", "transform_keypoints", "warp_image"]

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a crop lies: `matrix` (2, 3) maps orig px to net px before the flip; `flip` mirrors the net input."""

    matrix: Floats
    size: int
    flip: bool

    @property
    def scale(self) -> float:
        """Net px per orig px."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def flipped_matrix(self) -> Floats:
        """(2, 3) orig px to net px, the flip (x -> size - 1 - x) included."""
        if not self.flip:
            return self.matrix
        mirror = np.array([[-1.0, 0.0, self.size - 1.0], [0.0, 1.0, 0.0]])
        return np.asarray(mirror[:, :2] @ self.matrix + np.array([[0, 0, mirror[0, 2]], [0, 0, 0]]))


def sample_placement(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    persons: tuple[PersonRecord, ...],
    *,
    size: int,
    config: AugmentConfig,
    frame: Frame,
) -> Placement:
    """A random crop of an image of `image_size` (height, width) into a square of side `size` net px."""
    if config.crop.kind == "image":
        center, scale = _image_crop(rng, image_size, size, config.crop)
    else:
        center, scale = _person_crop(rng, image_size, persons, size=size, crop=config.crop)
    angle = 0.0
    if rng.random() < config.rotation_probability and config.rotation > 0:
        if config.rotation_distribution == "uniform":
            angle = float(rng.uniform(-config.rotation, config.rotation))
        else:
            angle = float(np.clip(rng.normal(0.0, config.rotation), -3 * config.rotation, 3 * config.rotation))
    matrix = _rotation_about(center, angle, scale, size=size, frame=frame)
    return Placement(matrix, size, bool(rng.random() < config.flip_probability))


def _rotation_about(center: Floats, angle: float, scale: float, *, size: int, frame: Frame) -> Floats:
    """The matrix that takes `center` (pixel edges in the consistent frame) to the middle of the output."""
    radians = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    shift = 0.5 if frame == "consistent" else 0.0
    # Pixel indices lie half a pixel inside the pixel's edges: x' + 1/2 = L (x + 1/2 - c) + size / 2.
    offset = np.full(2, size / 2.0) - linear @ (center - shift) - shift
    return np.concatenate([linear, offset[:, None]], axis=1)


def _image_crop(
    rng: np.random.Generator, image_size: tuple[int, int], size: int, crop: CropConfig
) -> tuple[Floats, float]:
    height, width = image_size
    side = min(height, width) * rng.uniform(*crop.scale)
    reach = round(crop.shift * side)
    shift = rng.integers(-reach, reach + 1, size=2)
    return np.array([width / 2.0, height / 2.0]) + shift, size / side


def _person_crop(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    persons: tuple[PersonRecord, ...],
    *,
    size: int,
    crop: CropConfig,
) -> tuple[Floats, float]:
    height, width = image_size
    long_side = max(height, width)
    labelled = [person for person in persons if person.is_labelled]
    if labelled and rng.random() < crop.focus:
        box = labelled[int(rng.integers(len(labelled)))].box.astype(np.float64)
        extent = box[2:] - box[:2]
        person = max(extent[0], 0.8 * extent[1], 20.0)
        low, high = np.log(crop.person_size[0] * size), np.log(crop.person_size[1] * size)
        scale = float(np.exp(rng.uniform(low, high)) / person)
        scale = float(np.clip(scale, 0.9 * size / long_side, crop.max_enlargement))
        freedom = 0.8 * max(0.0, size / scale - 0.5 * person)
        center = (box[:2] + box[2:]) / 2 + rng.uniform(-0.5, 0.5, 2) * freedom
    else:
        scale = float(size / long_side * np.exp(rng.uniform(-0.05, 1.2)))
        center = rng.uniform(0, 1, 2) * (width, height)
    reach = 0.9 * size / scale / 2
    limits = np.array([width, height], dtype=np.float64)
    inside = np.clip(center, reach, np.maximum(limits - reach, reach))
    return np.where(limits > 2 * reach, inside, limits / 2), scale


def warp_image(image: Image, placement: Placement, border: tuple[int, int, int]) -> Image:
    """(size, size, 3) crop of an image; strong reductions average over the source pixels."""
    matrix = placement.flipped_matrix
    scale = placement.scale
    if scale < 0.6:
        factor = max(2, round(0.7 / scale))
        height, width = image.shape[:2]
        image = cv2.resize(image, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        ratio = np.array([width / image.shape[1], height / image.shape[0]])
        linear = matrix[:, :2] * ratio
        offset = matrix[:, 2] + matrix[:, :2] @ (ratio / 2 - 0.5)
        matrix = np.concatenate([linear, offset[:, None]], axis=1)
    side = placement.size
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=border)  # type: ignore[return-value]


def transform_keypoints(
    keypoints: NDArray[np.float32], placement: Placement, flip_indices: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(P, K, 3) orig px -> net px, left and right swapped where the sample is flipped; v is carried along."""
    matrix = placement.flipped_matrix
    result = keypoints.copy()
    result[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    return result[:, flip_indices] if placement.flip else result


def transform_boxes(boxes: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """(P, 4) xyxy orig px -> upright boxes around the moved corners, net px."""
    matrix = placement.flipped_matrix
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)  # (P, 4 corners, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1).astype(np.float32)


def jitter_colors(rng: np.random.Generator, image: Image, resolution: int = 1) -> Image:
    """Random brightness, contrast, saturation, color cast, gray, blur and noise.

    An image of `resolution` times the sample's px a side is blurred and noisy as much as the sample once averaged down.
    """
    values = image.astype(np.float32)
    if rng.random() < 0.8:
        _adjust(rng, values)
    if rng.random() < 0.08:
        values = _gray(values)
    if rng.random() < 0.12:
        values = cv2.GaussianBlur(values, (0, 0), resolution * rng.uniform(0.4, 1.3))  # type: ignore[assignment]
    if rng.random() < 0.2:
        noise = rng.standard_normal(values.shape, dtype=np.float32)
        noise *= np.float32(resolution * rng.uniform(1, 10))
        values += noise
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _adjust(rng: np.random.Generator, values: NDArray[np.float32]) -> None:
    """Brightness, saturation, contrast and cast, in place: float arrays of three channels are slow to broadcast."""
    values *= np.float32(rng.uniform(0.6, 1.4))
    values += np.float32(rng.uniform(-25, 25))
    gray = _gray(values)
    values -= gray
    values *= np.float32(rng.uniform(0.3, 1.5))
    values += gray
    mean = values.mean()
    values -= mean
    values *= np.float32(rng.uniform(0.6, 1.4))
    values += mean
    cast = rng.uniform(0.88, 1.12, 3).astype(np.float32)
    values.reshape(len(values), -1)[:] *= np.tile(cast, values.shape[1])


def _gray(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, 3) the mean of the channels in all of them."""
    mean = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return np.asarray(cv2.merge((mean, mean, mean)))
