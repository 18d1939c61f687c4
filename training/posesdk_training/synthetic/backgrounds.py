"""What stands behind the people: pieces of photos without people, and drawn places.

Of annotated photos only windows are used that stay away from every annotated person.
"""

import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.sources import read_image
from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.synthetic.camera import Camera
from posesdk_training.synthetic.places import drawn_place

__all__ = ["Backgrounds", "Photo", "background_photos"]

logger = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MARGIN = 0.25
"""Around each annotated person, as a fraction of its long side."""
MAX_PERSONS = 4
"""Photos with more annotated persons are left out: where a crowd is, not everybody is annotated."""
MIN_WINDOW = 0.35
"""The short side of a window over that of its photo."""
DRAWN_SHARE = 0.2
CACHED = 200
TRIES = 12


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo; `taken` (N, 4) xyxy boxes, px, that windows must not touch, in an image of `size` (width, height)."""

    path: Path
    taken: Floats
    size: tuple[int, int] | None


def background_photos(source: str) -> tuple[Photo, ...]:
    """The photos of a folder, or of `ANNOTATIONS.json+FOLDER` (COCO format). Raises DataError when there are none."""
    annotations, plus, folder = source.partition(".json+")
    photos = _annotated(Path(f"{annotations}.json"), Path(folder)) if plus else _folder(Path(source))
    if not photos:
        raise DataError(f"no background photos in {source}; expected a folder of images, or ANNOTATIONS.json+FOLDER")
    return photos


def _folder(folder: Path) -> tuple[Photo, ...]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    return tuple(Photo(path, np.zeros((0, 4), dtype=np.float32), None) for path in paths)


def _annotated(annotations: Path, folder: Path) -> tuple[Photo, ...]:
    try:
        tree = json.loads(annotations.read_bytes())
        boxes: dict[int, list[list[float]]] = {entry["id"]: [] for entry in tree["images"]}
        for annotation in tree["annotations"]:
            x, y, width, height = annotation["bbox"]
            margin = MARGIN * max(width, height)
            boxes[annotation["image_id"]].append([x - margin, y - margin, x + width + margin, y + height + margin])
        return tuple(
            Photo(
                folder / entry["file_name"],
                np.array(boxes[entry["id"]], dtype=np.float32).reshape(-1, 4),
                (int(entry["width"]), int(entry["height"])),
            )
            for entry in tree["images"]
            if len(boxes[entry["id"]]) <= MAX_PERSONS
        )
    except OSError as error:
        raise DataError(f"cannot read {annotations} for backgrounds: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read {annotations} for backgrounds: {error!r}; expected COCO annotations") from error


class Backgrounds:
    """Random backgrounds from several sources of photos, each as likely as the others; drawn ones without any."""

    def __init__(self, sources: tuple[tuple[Photo, ...], ...]) -> None:
        self._sources = sources
        self._cache: OrderedDict[Path, Image] = OrderedDict()

    def __call__(self, rng: np.random.Generator, camera: Camera) -> Floats:
        """(H, W, 3) BGR 0..255 behind what `camera` sees."""
        if not self._sources or rng.random() < DRAWN_SHARE:
            place = drawn_place(rng, camera, self.piece)
        else:
            place = self.piece(rng, (camera.width, camera.height))
            if rng.random() < 0.1:  # another piece as the floor
                floor = self.piece(rng, (camera.width, camera.height))
                line = int(camera.height * rng.uniform(0.4, 0.8))
                place[line:] = floor[line:]
        return _developed(rng, place)

    def piece(self, rng: np.random.Generator, size: tuple[int, int]) -> Floats:
        """(H, W, 3) BGR a random window of a random photo at `size` (width, height); a color without photos."""
        for _ in range(TRIES * bool(self._sources)):
            source = self._sources[rng.integers(len(self._sources))]
            photo = source[rng.integers(len(source))]
            window = self._window(rng, photo, size)
            if window is None:
                continue
            left, top, right, bottom = window
            piece = self._read(photo.path)[top:bottom, left:right]
            if rng.random() < 0.5:
                piece = piece[:, ::-1]
            shrinks = piece.shape[1] > size[0]
            resized = cv2.resize(piece, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            return resized.astype(np.float32)
        color = rng.uniform(0, 255, 3).astype(np.float32)
        return np.tile(color, (size[1], size[0], 1))

    def samples(self, rng: np.random.Generator, count: int) -> list[Image]:
        """Pieces of photos for the patterns of cloth; none without photos."""
        if not self._sources:
            return []
        return [self.piece(rng, (192, 192)).astype(np.uint8) for _ in range(count)]

    def _window(
        self, rng: np.random.Generator, photo: Photo, size: tuple[int, int]
    ) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of a window without people; None if none was found."""
        if photo.size is None:
            image = self._read(photo.path)
            width, height = image.shape[1], image.shape[0]
        else:
            width, height = photo.size
        ratio = size[0] / size[1]
        largest = min(width, height * ratio)
        share = rng.uniform(MIN_WINDOW, 1) if rng.random() < 0.7 else 1.0
        across = max(8, int(largest * share))
        down = max(8, int(across / ratio))
        for _ in range(4):
            left, top = int(rng.integers(max(1, width - across + 1))), int(rng.integers(max(1, height - down + 1)))
            right, bottom = min(width, left + across), min(height, top + down)
            taken = photo.taken
            meets = (taken[:, 0] < right) & (taken[:, 2] > left) & (taken[:, 1] < bottom) & (taken[:, 3] > top)
            if not meets.any():
                return left, top, right, bottom
        return None

    def _read(self, path: Path) -> Image:
        """A photo as it is stored, from a cache of the latest ones. Raises DataError if it cannot be read."""
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        try:
            image = read_image(path, oriented=False)
        except SourceError as error:
            raise DataError(f"cannot use a background: {error}; take it out of the folder") from error
        self._cache[path] = image
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return image


def _developed(rng: np.random.Generator, place: Floats) -> Floats:
    """Another exposure, color and sharpness."""
    if rng.random() < 0.5:
        place = (
            place * rng.uniform(0.7, 1.3, 3).astype(np.float32).mean() * rng.uniform(0.93, 1.07, 3).astype(np.float32)
        )
    if rng.random() < 0.3:
        gray = place.mean(2, keepdims=True)
        place = gray + (place - gray) * np.float32(rng.uniform(0.2, 1.5))
    if rng.random() < 0.25:  # out of focus
        place = np.asarray(cv2.GaussianBlur(place, (0, 0), rng.uniform(0.6, 4.0)), dtype=np.float32)
    return np.clip(place, 0, 255).astype(np.float32)
