"""Annotated persons as a protocol sees them: COCO keypoints, CrowdPose or OCHuman."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posesdk.keypoint_names import canonical_names
from posesdk.skeleton import COCO_17, CROWDPOSE_14, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.formats import BOX_AREA, CROWDPOSE_AREA
from posesdk_training.files import read_json

__all__ = ["PROTOCOLS", "GroundTruth", "ProtocolName", "load_ground_truth"]

ProtocolName = Literal["coco", "crowdpose", "ochuman"]
PROTOCOLS: tuple[ProtocolName, ...] = ("coco", "crowdpose", "ochuman")

Floats = NDArray[np.float64]
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """The images of an annotation file that are evaluated, and what the protocol says of the persons in them.

    `sigmas` (K,) are those of OKS; every annotation of `tree` has the `area` of the protocol, in square px.
    """

    path: Path
    protocol: ProtocolName
    tree: Tree
    image_ids: tuple[int, ...]
    keypoints: tuple[str, ...]
    sigmas: Floats
    category: int

    @property
    def persons(self) -> list[Tree]:
        """The annotations that are to be found: no crowds, at least one keypoint labelled."""
        chosen = set(self.image_ids)
        return [entry for entry in self.tree["annotations"] if entry["image_id"] in chosen and _is_labelled(entry)]

    @property
    def images(self) -> dict[int, Tree]:
        """The chosen images by id."""
        chosen = set(self.image_ids)
        return {int(entry["id"]): entry for entry in self.tree["images"] if entry["id"] in chosen}

    def image_list(self, folder: Path) -> list[tuple[int, Path]]:
        """(id, path) of every chosen image, those without people included."""
        images = self.images
        return [(number, folder / images[number]["file_name"]) for number in self.image_ids]

    def existing_images(self, folder: Path, *, option: str) -> list[tuple[int, Path]]:
        """As `image_list`. Raises DataError where files are missing, and names the `option` that gives the folder."""
        listed = self.image_list(folder)
        if missing := [path for _, path in listed if not path.is_file()]:
            raise DataError(
                f"{len(missing)} of {len(listed)} images of {self.path} are not in {folder}, such as {missing[0]}; "
                f"check {option}"
            )
        return listed

    def of_images(self, image_ids: Sequence[int]) -> "GroundTruth":
        """The same annotations, of which only some images are evaluated."""
        return replace(self, image_ids=tuple(image_ids))


def load_ground_truth(
    annotations: Path,
    skeleton: Skeleton = COCO_17,
    *,
    protocol: ProtocolName | None = None,
    limit: int | None = None,
    image_ids: Sequence[int] | None = None,
) -> GroundTruth:
    """The persons of a COCO-format file, of all its images, `image_ids` or the first `limit` by id.

    Without `protocol` it is CrowdPose where the images have a `crowdIndex`, OCHuman where the file's name says so,
    else COCO. Raises DataError for a file that is no such file, or whose persons have other keypoints than `skeleton`.
    """
    tree = _read(annotations)
    chosen = protocol or _detected(annotations, tree)
    _check_keypoints(annotations, tree, skeleton)
    if chosen == "crowdpose" and len(skeleton) != len(CROWDPOSE_14):
        raise DataError(
            f"CrowdPose has {len(CROWDPOSE_14)} keypoints and the model {len(skeleton)} ({skeleton.name}): "
            "evaluate a model that was trained on CrowdPose"
        )
    sigmas = np.array((CROWDPOSE_14 if chosen == "crowdpose" else skeleton).sigmas)
    numbers = sorted(int(entry["id"]) for entry in tree["images"]) if image_ids is None else sorted(image_ids)
    tree = tree | {"annotations": [_with_area(entry, chosen, annotations) for entry in tree["annotations"]]}
    return GroundTruth(
        annotations, chosen, tree, tuple(numbers[:limit]), skeleton.keypoints, sigmas, _category(annotations, tree)
    )


def _is_labelled(entry: Tree) -> bool:
    return not entry.get("iscrowd") and entry["num_keypoints"] > 0


def _detected(annotations: Path, tree: Tree) -> ProtocolName:
    if tree["images"] and all("crowdIndex" in entry for entry in tree["images"]):
        return "crowdpose"
    return "ochuman" if "ochuman" in annotations.name.lower() else "coco"


def _with_area(entry: Tree, protocol: ProtocolName, annotations: Path) -> Tree:
    width, height = entry["bbox"][2:]
    if protocol == "crowdpose":
        return entry | {"area": CROWDPOSE_AREA * width * height}
    if protocol == "ochuman":
        return entry | {"area": BOX_AREA * width * height}
    if "area" not in entry:
        raise DataError(
            f"annotation {entry.get('id')} of {annotations} lacks 'area', which the COCO protocol takes the size of a "
            "person from; add it, or evaluate with the protocol crowdpose or ochuman, which take it from the box"
        )
    return dict(entry)


def _category(annotations: Path, tree: Tree) -> int:
    """The one category of the persons, by name where there are several."""
    categories = tree["categories"]
    named = [entry for entry in categories if entry.get("name") == "person"] or categories
    if not named:
        raise DataError(f"annotations {annotations} name no category; add the one of persons")
    return int(named[0]["id"])


def _check_keypoints(annotations: Path, tree: Tree, skeleton: Skeleton) -> None:
    for entry in tree["annotations"]:
        if len(entry["keypoints"]) != 3 * len(skeleton):
            raise DataError(
                f"annotation {entry.get('id')} of {annotations} has {len(entry['keypoints']) / 3:g} keypoints, the "
                f"model {len(skeleton)} ({skeleton.name}); evaluate it on annotations of its own skeleton"
            )
    for category in tree["categories"]:
        names = tuple(category.get("keypoints", ()))
        if names and canonical_names(names) != canonical_names(skeleton.keypoints):
            raise DataError(
                f"category {category.get('name')!r} of {annotations} labels {', '.join(names)}, the model gives "
                f"{', '.join(skeleton.keypoints)}; bring the annotations into the model's names and order"
            )


def _read(annotations: Path) -> Tree:
    tree = read_json(annotations, "annotations")
    if not isinstance(tree, dict) or not {"images", "annotations", "categories"} <= tree.keys():
        raise DataError(
            f"annotations {annotations} are not in COCO format: expected an object with images, annotations"
        )
    for entry in tree["annotations"]:
        if missing := {"image_id", "num_keypoints", "bbox", "keypoints"} - entry.keys():
            raise DataError(f"annotation {entry.get('id')} of {annotations} lacks {sorted(missing)}: no keypoint file")
    return tree
