"""The model's skeleton in a configuration: a name, a file, a mapping, or that of a data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posesdk.skeleton import SKELETONS, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.data.formats import AnnotationTree, as_coco
from posesdk_training.data.skeletons import category_skeleton, keypoint_categories, map_keypoints, skeleton_from

__all__ = ["join_skeleton", "optional_skeleton", "replaces_skeleton", "with_model_skeleton"]

Tree = Mapping[str, Any]


def optional_skeleton(value: Any) -> Skeleton | None:
    """What `skeleton_from` makes of a value, None of none."""
    return None if value is None else skeleton_from(value)


def replaces_skeleton(model: Tree) -> bool:
    """Whether a model section brings a skeleton, not only parts of one."""
    given = model.get("skeleton")
    return given is not None and (not isinstance(given, Mapping) or bool({"keypoints", "from"} & given.keys()))


def join_skeleton(root: Path, value: str) -> str | Path:
    """A skeleton's file below `root`; registered names stay as they are."""
    return value if value in SKELETONS else root / value


def with_model_skeleton(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose `model.skeleton` is a mapping: it may be a name, a file, or that of a data set.

    `data` is the skeleton of the data sets, which then have to agree, `{from: NAME}` that of one of them. Whatever is
    malformed otherwise is left to validation. Raises DataError where it cannot be had.
    """
    model = tree.get("model")
    if not isinstance(model, dict) or isinstance(model.get("skeleton", {}), Skeleton):
        return tree
    wanted = model.get("skeleton")
    try:
        if wanted == "data":
            skeleton = _common_skeleton(_sets(tree))
        elif isinstance(wanted, Mapping) and set(wanted) == {"from"}:
            skeleton = _skeleton_of(_set_named(_sets(tree), wanted["from"]))
        elif wanted is None:
            return tree
        else:
            skeleton = skeleton_from(wanted)
    except ValueError as error:
        raise DataError(f"the configuration's model.skeleton: {error}") from error
    return tree | {"model": model | {"skeleton": skeleton.model_dump()}}


def _sets(tree: Tree) -> list[Tree]:
    data = tree.get("data")
    sets = data.get("sets") if isinstance(data, Mapping) else None
    return [entry for entry in sets or () if isinstance(entry, Mapping)]


def _set_named(sets: list[Tree], name: Any) -> Tree:
    for entry in sets:
        if entry.get("name") == name:
            return entry
    raise ValueError(f"there is no data set named {name!r}; there are {[entry.get('name') for entry in sets]}")


def _common_skeleton(sets: list[Tree]) -> Skeleton:
    labelled = [entry for entry in sets if entry.get("annotations") or entry.get("shards")]
    named = {str(entry.get("name")): _skeleton_of(entry) for entry in labelled}
    if not named:
        raise ValueError("no data set has annotations to take it from")
    first = next(iter(named))
    for name, skeleton in named.items():
        if skeleton.keypoints != named[first].keypoints:
            raise ValueError(
                f"the data sets {first!r} and {name!r} have different keypoints; choose one with "
                f"`skeleton: {{from: {first}}}`"
            )
    return named[first]


def _skeleton_of(entry: Tree) -> Skeleton:
    """The skeleton that a data set's section gives, else that of its annotation file or shards."""
    name = str(entry.get("name", "data"))
    if entry.get("skeleton") is not None:
        return skeleton_from(entry["skeleton"], name=name)
    source = entry.get("annotations") or entry.get("shards")
    if source is None:
        raise ValueError(f"data set {name!r} has no annotations to take it from; give the set a `skeleton`")
    title = f"data set {name!r} ({source})"
    try:
        content = _content(entry)
        categories = keypoint_categories(content.tree, entry.get("categories"), title)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read the skeleton of {title}: {error!r}; give the set a `skeleton`") from error
    named = tuple(str(keypoint) for category in categories[:1] for keypoint in category.get("keypoints") or ())
    if content.skeleton is not None and (not named or min(map_keypoints(named, content.skeleton.keypoints)) >= 0):
        return content.skeleton
    if not named:
        raise ValueError(f"{title} declares no keypoints; give the set a `skeleton`")
    return category_skeleton(categories[0], name=name)


def _content(entry: Tree) -> AnnotationTree:
    if entry.get("annotations") is not None:
        return as_coco(json.loads(Path(entry["annotations"]).read_bytes()), entry.get("format", "auto"))
    from posesdk_training.data.shard_index import find_shards  # which imports the configuration

    categories = list(find_shards(str(entry["shards"])).categories)
    return as_coco({"images": [], "annotations": [], "categories": categories}, entry.get("format", "auto"))
