"""A COCO-format tree as records, in the order of the model's keypoints; its faults are counted."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.keypoint_names import canonical_names
from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.box_regions import box_without
from posesdk_training.data.faults import FaultLog
from posesdk_training.data.formats import as_coco
from posesdk_training.data.persons import ImageSize, PersonReader
from posesdk_training.data.records import ImageRecord, KeypointSet, PersonRecord, Region
from posesdk_training.data.skeletons import keypoint_categories, map_keypoints
from posesdk_training.settings.data import DatasetConfig

__all__ = ["annotated_keypoints", "keypoint_set_of", "malformed"]

Tree = dict[str, Any]

NAMELESS = "image entries have no id or file_name and are left out"
DUPLICATE = "images are listed twice; the second entry is left out"
UNKNOWN_IMAGE = "annotations belong to no image of the file and are left out"
NOWHERE = "persons have neither box, mask nor keypoints within their image, which is left out"


def keypoint_set_of(
    config: DatasetConfig, tree: Tree, skeleton: Skeleton, *, images: Path, source: Path
) -> KeypointSet:
    """The records of a COCO tree that was read from `source`; its images lie below `images`. Raises DataError.

    Logs nothing: shards are read with it, one sample at a time. What is wrong stands in `faults`.
    """
    title = f"data set {config.name!r} ({source})"
    try:
        content = as_coco(tree, config.format)
        categories = keypoint_categories(content.tree, config.categories, title)
        names = _names(config, categories, content.skeleton or skeleton)
        order = _order(names, skeleton, title)
        faults = FaultLog()
        reader = PersonReader(title, len(names), order, content.box_area, faults)
        by_image = _by_image(content.tree, categories, faults)
        records = tuple(
            record
            for entry in _entries(content.tree, faults, title)
            if by_image[entry["id"]] or not config.only_with_persons
            for record in _image(entry, by_image[entry["id"]], images, reader, open_crowds=content.open_crowds)
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise malformed(config, source, error) from error
    return KeypointSet(config, records, annotated_keypoints(config, skeleton, order), skeleton, faults.faults())


def malformed(config: DatasetConfig, source: Path, error: Exception) -> DataError:
    """The error for a file whose content is none of the known formats."""
    return DataError(
        f"cannot read COCO keypoints of data set {config.name!r} from {source}: {error!r}; "
        "expected a JSON object with images, annotations and categories"
    )


def annotated_keypoints(
    config: DatasetConfig, skeleton: Skeleton, order: NDArray[np.intp] | None = None
) -> NDArray[np.bool_]:
    """(K,) which of the model's keypoints a set labels: those that it has, of these the ones that it names."""
    has = np.ones(len(skeleton), dtype=np.bool_) if order is None else order >= 0
    if config.annotated_keypoints is None:
        return has
    own = () if config.skeleton is None else config.skeleton.keypoints
    chosen = _chosen(config.annotated_keypoints, skeleton.keypoints)
    unknown = set(config.annotated_keypoints) - set(own) - chosen[1]
    if unknown:
        raise DataError(f"data set {config.name!r}: {sorted(unknown)} are not keypoints of {skeleton.name}")
    return np.asarray(has & chosen[0])


def _chosen(names: tuple[str, ...], keypoints: tuple[str, ...]) -> tuple[NDArray[np.bool_], set[str]]:
    """(K,) which keypoints are named, and the names that are those of a keypoint."""
    meanings = canonical_names(keypoints)
    spelled = dict(zip(names, canonical_names(names), strict=True))
    wanted = {*names, *spelled.values()}
    chosen = [name in wanted or meaning in wanted for name, meaning in zip(keypoints, meanings, strict=True)]
    known = {name for name in names if name in keypoints or spelled[name] in meanings}
    return np.array(chosen, dtype=np.bool_), known


def _names(config: DatasetConfig, categories: list[Tree], default: Skeleton) -> tuple[str, ...]:
    if config.skeleton is not None:
        return config.skeleton.keypoints
    named = next((category["keypoints"] for category in categories if category.get("keypoints")), None)
    return default.keypoints if named is None else tuple(str(name) for name in named)


def _order(names: tuple[str, ...], skeleton: Skeleton, title: str) -> NDArray[np.intp]:
    order = np.array(map_keypoints(names, skeleton.keypoints), dtype=np.intp)
    if (order < 0).all():
        raise DataError(
            f"{title} labels {len(names)} keypoints ({', '.join(names[:3])}, ...), none of the {len(skeleton)} of "
            f"{skeleton.name} ({', '.join(skeleton.keypoints[:3])}, ...); give the model the set's own skeleton "
            "(`model.skeleton: data`), or the set the names that the model has (`skeleton`)"
        )
    return order


def _by_image(tree: Tree, categories: list[Tree], faults: FaultLog) -> dict[Any, list[Tree]]:
    """Annotations of the chosen categories, and of none that the file lists, by their image."""
    chosen = {category.get("id") for category in categories}
    others = {category.get("id") for category in tree.get("categories") or ()} - chosen
    known = {entry.get("id") for entry in tree["images"]}
    by_image: dict[Any, list[Tree]] = defaultdict(list)
    for annotation in tree["annotations"]:
        if annotation.get("image_id") not in known:
            faults.add(UNKNOWN_IMAGE, f"annotation {annotation.get('id')}")
        elif not others or annotation.get("category_id") not in others:
            by_image[annotation["image_id"]].append(annotation)
    return by_image


def _entries(tree: Tree, faults: FaultLog, title: str) -> Iterator[Tree]:
    """The images that can be used, each once."""
    seen: dict[Any, str] = {}
    for number, entry in enumerate(tree["images"], start=1):
        if entry.get("id") is None or not entry.get("file_name"):
            faults.add(NAMELESS, f"entry {number}")
        elif entry["id"] not in seen:
            seen[entry["id"]] = entry["file_name"]
            yield entry
        elif seen[entry["id"]] == entry["file_name"]:
            faults.add(DUPLICATE, f"image {entry['id']}")
        else:
            raise DataError(
                f"{title}: image id {entry['id']} stands for {seen[entry['id']]} and for {entry['file_name']}, so that "
                "its annotations cannot be told apart; number the images anew"
            )


def _image(
    entry: Tree, annotations: list[Tree], folder: Path, reader: PersonReader, *, open_crowds: bool
) -> Iterable[ImageRecord]:
    """The record of an image, or none where a person in it could be anywhere."""
    size = _size(entry)
    persons: list[PersonRecord] = []
    masked: list[Region] = []
    crowd_boxes: list[PersonRecord] = []
    for annotation in annotations:
        found = reader.read(annotation, size)
        if found is None:
            reader.faults.add(NOWHERE, f"annotation {annotation.get('id')}")
            return ()
        person, region = found
        if person.is_crowd and open_crowds:
            crowd_boxes.append(person)
        elif person.is_crowd or not person.is_labelled:
            masked.append(region)
        if person.is_labelled or not person.is_crowd:
            persons.append(person)
    known = [person.box for person in persons if person.is_labelled and not person.is_crowd]
    masked += [box_without(crowd.box.tolist(), known) for crowd in crowd_boxes]
    crowd_index = entry.get("crowdIndex")
    return (
        ImageRecord(
            folder / entry["file_name"],
            int(entry["id"]),
            tuple(persons),
            tuple(masked),
            None if crowd_index is None else float(crowd_index),
        ),
    )


def _size(entry: Tree) -> ImageSize:
    width, height = entry.get("width"), entry.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float) or width <= 0 or height <= 0:
        return None
    return float(width), float(height)
