"""Pictures to measure a model on: those of a folder, or of a COCO annotation file with its labels."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.coco_accuracy import LabelledPersons
from posesdk.keypoint_names import canonical_names
from posesdk.skeleton import Skeleton
from posesdk.sources import is_picture, natural_order, read_image
from posesdk_runtimes.errors import SourceError

__all__ = ["PictureFiles", "list_pictures", "read_pictures"]

CROWDPOSE_AREA = 0.53
"""Area of a person, as a part of its box, by which CrowdPose is evaluated: its files give none."""

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class PictureFiles:
    """Pictures by path, and what is labelled in each of them, in the same order; None where nothing is.

    Going through them reads each one (H, W, 3) uint8 BGR, as often as it is done. Raises SourceError for one that
    cannot be read: leaving it out would change the figures.
    """

    source: Path
    paths: tuple[Path, ...]
    labels: tuple[LabelledPersons, ...] | None = None

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        # Labels are made on the picture as it is stored, whatever its EXIF orientation says.
        return ((path.name, read_image(path, oriented=self.labels is None)) for path in self.paths)


def read_pictures(
    source: Path, skeleton: Skeleton, *, images: Path | None = None, limit: int | None = None
) -> PictureFiles:
    """The first `limit` pictures of a folder by name, or of a COCO file by id; all of them for None.

    The pictures of a COCO file lie in `images`, else in a folder `images` beside it, or beside it. Raises SourceError
    where there are none or one is missing, and for annotations that cannot be read or are of another skeleton.
    """
    if source.is_dir():
        if images is not None:
            raise SourceError(f"--images {images}: {source} is a folder of pictures itself; leave --images out")
        return PictureFiles(source, _of_folder(source)[:limit])
    with _reading(source) as tree:
        entries = sorted(tree["images"], key=lambda entry: int(entry["id"]))[:limit]
        paths = _paths(source, entries, images)
        return PictureFiles(source, paths, _people_of(source, tree, entries, skeleton))


def list_pictures(source: Path) -> tuple[Path, ...]:
    """As `read_pictures` without looking at what is labelled: the file may be of any skeleton, or of none."""
    if source.is_dir():
        return _of_folder(source)
    with _reading(source) as tree:
        return _paths(source, tree["images"], None)


@contextmanager
def _reading(source: Path) -> Iterator[Tree]:
    """The content of a COCO file; what is not as it should be while it is used becomes a SourceError."""
    try:
        tree = json.loads(source.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot read {source}: {error.strerror or error}; check the path") from error
    except ValueError as error:
        raise SourceError(f"cannot read {source}: neither a folder nor a COCO annotation file ({error})") from error
    try:
        yield tree
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"cannot read {source}: no COCO annotations ({error!r}); check the file") from error


def _of_folder(folder: Path) -> tuple[Path, ...]:
    found = [path for path in folder.rglob("*") if is_picture(path)]
    if not found:
        raise SourceError(f"folder {folder} holds no picture; name another one, or a COCO annotation file")
    return tuple(sorted(found, key=natural_order))


def _paths(source: Path, entries: list[Tree], images: Path | None) -> tuple[Path, ...]:
    if not entries:
        raise SourceError(f"{source} lists no images; name another file")
    folders = (source.parent / "images", source.parent) if images is None else (images,)
    return tuple(_find(source, str(entry["file_name"]), folders) for entry in entries)


def _people_of(source: Path, tree: Tree, entries: list[Tree], skeleton: Skeleton) -> tuple[LabelledPersons, ...] | None:
    """What is labelled in each of these images; None for a file without annotations."""
    if not tree.get("annotations"):
        return None
    people: dict[int, list[Tree]] = {int(entry["id"]): [] for entry in entries}
    category = _category(source, tree, skeleton)
    for annotation in tree["annotations"]:
        if annotation["category_id"] == category and annotation["image_id"] in people:
            people[annotation["image_id"]].append(annotation)
    crowdpose = all("crowdIndex" in entry for entry in tree["images"])
    return tuple(_labels(source, persons, skeleton, crowdpose=crowdpose) for persons in people.values())


def _find(source: Path, name: str, folders: tuple[Path, ...]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = " nor in ".join(str(folder) for folder in folders)
    raise SourceError(
        f"{source}: its image {name} is not in {places}; put it there, or name the folder of labelled ones with "
        "--images"
    )


def _category(source: Path, tree: Tree, skeleton: Skeleton) -> int:
    """The category of persons, by name where there are several, whose keypoints are those of the model."""
    categories = tree["categories"]
    person = ([entry for entry in categories if entry.get("name") == "person"] or categories)[0]
    names = tuple(person.get("keypoints") or skeleton.keypoints)
    if canonical_names(names) != canonical_names(skeleton.keypoints):
        raise SourceError(
            f"{source} labels {', '.join(names)}, the model finds {', '.join(skeleton.keypoints)}; "
            "name a file with the model's keypoints, or a folder of pictures to do without labels"
        )
    return int(person["id"])


def _labels(source: Path, persons: list[Tree], skeleton: Skeleton, *, crowdpose: bool) -> LabelledPersons:
    count = len(skeleton)
    for person in persons:
        if len(person["keypoints"]) != 3 * count:
            raise SourceError(
                f"annotation {person.get('id')} of {source} has {len(person['keypoints']) / 3:g} keypoints, the model "
                f"{count} ({skeleton.name}); name a file with the model's keypoints"
            )
        if not crowdpose and "area" not in person:
            raise SourceError(
                f"annotation {person.get('id')} of {source} lacks 'area', by which COCO judges distances; add it"
            )
    keypoints = np.array([person["keypoints"] for person in persons], np.float64).reshape(-1, count, 3)
    boxes = np.array([person["bbox"] for person in persons], np.float64).reshape(-1, 4)
    areas = CROWDPOSE_AREA * boxes[:, 2] * boxes[:, 3]
    if not crowdpose:
        areas = np.array([person["area"] for person in persons], np.float64)
    crowds = np.array([bool(person.get("iscrowd")) for person in persons], bool)
    empty = np.array([not person["num_keypoints"] for person in persons], bool)
    return LabelledPersons(keypoints, boxes, areas, crowds | empty, crowds)
