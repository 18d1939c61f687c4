"""One picture with many photos and what a model finds in them: a first look that no figure replaces."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.draw import draw_poses
from posesdk.images import read_image
from posesdk.poses import Poses
from posesdk.skeleton import COCO_17, Skeleton
from posesdk.sources import IMAGE_SUFFIXES
from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.evaluated_model import EvaluatedModel
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.files import require_picture, write_picture
from posesdk_training.progress import progress
from posesdk_training.report.drawing import fit_poses

__all__ = ["Photo", "choose_photos", "labelled_photos", "picture_sheet", "write_sheet"]

Image = NDArray[np.uint8]
Detect = Callable[[Image], Poses]

TILE, CAPTION, GAP, COLUMNS = 320, 22, 8, 6
BACK, TEXT = (24, 24, 24), (235, 235, 235)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and how many labelled people are on it, None where nobody counted."""

    path: Path
    persons: int | None = None


def choose_photos(
    images: Path,
    count: int,
    *,
    seed: int = 0,
    listed: Sequence[Path] | None = None,
    persons: Counter[str] | None = None,
) -> list[Photo]:
    """`count` photos of a folder, or of those `listed`, the same for the same seed, by name.

    `persons` is how many people a photo has, by its path; photos that it does not name have none. Raises DataError
    for a folder without photos.
    """
    paths = sorted(listed if listed is not None else _pictures(images))
    if not paths:
        raise DataError(f"no pictures in {images}; give a folder of photos")
    chosen = sorted(random.Random(seed).sample(paths, min(count, len(paths))))
    return [Photo(path, None if persons is None else persons[str(path)]) for path in chosen]


def picture_sheet(
    photos: Sequence[Photo], detect: Detect, *, oriented: bool = True, on_photo: Callable[[int], None] | None = None
) -> Image:
    """A grid (H, W, 3) uint8 BGR of photos with the poses that `detect` gives, a caption below each.

    A photo that cannot be read is named on an empty tile. `oriented` False takes the pixels as they are stored, as
    annotations do. `on_photo` is called with the number of photos done.
    """
    if not photos:
        raise ValueError("expected at least one photo")
    tiles = []
    for done, photo in enumerate(photos, start=1):
        tiles.append(_tile(photo, detect, oriented))
        if on_photo is not None:
            on_photo(done)
    columns = min(COLUMNS, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    height, width = tiles[0].shape[:2]
    sheet = np.full((GAP + len(rows) * (height + GAP), GAP + columns * (width + GAP), 3), BACK, np.uint8)
    for index, tile in enumerate(tiles):
        y, x = GAP + index // columns * (height + GAP), GAP + index % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def labelled_photos(annotations: Path, images: Path, skeleton: Skeleton = COCO_17) -> tuple[list[Path], Counter[str]]:
    """The photos of a COCO file, and how many labelled people each path has. Raises DataError."""
    truth = load_ground_truth(annotations, skeleton)
    listed = dict(truth.image_list(images))
    return list(listed.values()), Counter(str(listed[person["image_id"]]) for person in truth.persons)


def write_sheet(
    photos: Sequence[Photo], model: EvaluatedModel, output: Path, *, score: float | None = None, oriented: bool = True
) -> None:
    """A sheet of what a model shows at its own thresholds, or from `score` on, as a picture file.

    Progress is shown on stderr where that is a terminal. Raises DataError for a file that cannot be written, before
    the model runs where its folder or its format is the reason.
    """
    require_picture(output)
    decode = model.spec.decode
    level = decode.score_threshold if score is None else score

    def detect(image: Image) -> Poses:
        return replace(model.detect(image).above(level), keypoint_threshold=decode.keypoint_threshold)

    with progress("detecting", len(photos)) as advance:
        sheet = picture_sheet(photos, detect, oriented=oriented, on_photo=advance)
    write_picture(output, sheet)


def _pictures(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES]


def _tile(photo: Photo, detect: Detect, oriented: bool) -> Image:
    tile = np.full((TILE + CAPTION, TILE, 3), BACK, np.uint8)
    try:
        image = read_image(photo.path, oriented=oriented)
    except SourceError:
        _write(tile, "cannot be read", TILE // 2)
        _write(tile, _short(photo.path.name), TILE + CAPTION - 7)
        return tile
    poses = detect(image)
    small = draw_poses(*fit_poses(image, poses, TILE))
    y, x = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    tile[y : y + small.shape[0], x : x + small.shape[1]] = small
    labelled = "" if photo.persons is None else f", {photo.persons} labelled"
    _write(tile, f"{_short(photo.path.name)}: {len(poses)} found{labelled}", TILE + CAPTION - 7)
    return tile


def _short(name: str) -> str:
    """A name that fits below a tile in the letters that OpenCV has."""
    plain = name.encode("ascii", "replace").decode("ascii")
    return plain if len(plain) <= 20 else f"{plain[:8]}..{plain[-10:]}"


def _write(tile: Image, text: str, y: int) -> None:
    cv2.putText(tile, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TEXT, 1, cv2.LINE_AA)
