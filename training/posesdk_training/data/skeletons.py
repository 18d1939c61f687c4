"""Skeletons of data sets: read from a category, a file or the configuration, and mapped to the model's by name."""

import json
import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posesdk.keypoint_names import canonical_names, left_right_pairs
from posesdk.skeleton import SKELETONS, Skeleton
from posesdk_runtimes.errors import DataError

__all__ = ["DEFAULT_SIGMA", "category_skeleton", "keypoint_categories", "map_keypoints", "skeleton_from"]

logger = logging.getLogger(__name__)

DEFAULT_SIGMA = 0.06
"""For keypoints without a sigma: the geometric mean of COCO's 17, which lie between 0.025 (eyes) and 0.107 (hips)."""

KEYS = ("name", "keypoints", "edges", "skeleton", "flip_pairs", "sigmas")
"""Of a skeleton's mapping. A category has others, but none that is spelled alike."""

Tree = Mapping[str, Any]


def skeleton_from(value: Any, *, name: str = "custom") -> Skeleton:
    """A skeleton given as such, by its registered name, as a mapping, or by the path of a YAML or JSON file with one.

    The mapping has `keypoints` (names) and may have `name`; `edges`, pairs of names or of indices from 0, or COCO's
    `skeleton`, pairs of indices from 1; `flip_pairs`, pairs of names or indices from 0, else read from the names;
    `sigmas`, a list, one number for all, or numbers by name. A file may also be a COCO annotation file.
    Without sigmas those of the registered skeleton with these keypoints are taken, else 0.06, with a warning.
    Raises DataError for a file that cannot be read, ValueError for what is no skeleton.
    """
    if isinstance(value, Skeleton):
        return value
    if isinstance(value, str) and value in SKELETONS:
        return SKELETONS[value]
    if isinstance(value, str | Path):
        return _read(Path(value))
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a skeleton's name, file or mapping, got {value!r}")
    return _from_mapping(value, name)


def _read(path: Path) -> Skeleton:
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"cannot read the skeleton {path}: {error}; give the path of a YAML or JSON file, or one of "
            f"{', '.join(SKELETONS)}"
        ) from error
    if isinstance(tree, dict) and isinstance(tree.get("categories"), list) and tree["categories"]:
        tree = tree["categories"][0]
    try:
        if not isinstance(tree, dict):
            raise ValueError("the file holds no mapping")
        return _from_mapping(tree, path.stem)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot use the skeleton {path}: {error}") from error


def category_skeleton(category: Tree, *, name: str) -> Skeleton:
    """The skeleton of a COCO category (`keypoints`, `skeleton`, perhaps `sigmas` and `flip_pairs`), called `name`.

    It is the registered one where the keypoints are, in their order, and the category brings no sigmas.
    Raises ValueError for a category that is none.
    """
    registered = _registered(tuple(category["keypoints"]))
    if registered is not None and "sigmas" not in category:
        return registered
    return _from_mapping({key: value for key, value in category.items() if key != "name"}, name)


def keypoint_categories(tree: Tree, wanted: Sequence[str] | None, title: str) -> list[dict[str, Any]]:
    """The categories of a COCO tree whose annotations are persons, by default those that declare keypoints, else all.

    Raises DataError for names that are not there, and for categories with different keypoints.
    """
    categories: list[dict[str, Any]] = list(tree.get("categories") or ())
    if wanted is not None:
        names = [category.get("name") for category in categories]
        if missing := set(wanted) - set(names):
            raise DataError(f"{title}: there is no category {sorted(missing)}; the file has {names}")
        categories = [category for category in categories if category.get("name") in wanted]
    chosen = [category for category in categories if category.get("keypoints")] or categories
    lists = {tuple(category.get("keypoints") or ()) for category in chosen}
    if len(lists) > 1:
        raise DataError(
            f"{title}: its categories {[category.get('name') for category in chosen]} have different keypoints; choose "
            "one with `categories: [NAME]`"
        )
    return chosen


def _registered(names: tuple[str, ...]) -> Skeleton | None:
    wanted = canonical_names(names)
    return next((known for known in SKELETONS.values() if known.keypoints == wanted), None)


def _from_mapping(tree: Tree, name: str) -> Skeleton:
    if not isinstance(tree.get("keypoints"), Sequence) or isinstance(tree["keypoints"], str):
        raise ValueError(f"skeleton {tree.get('name', name)!r}: `keypoints` must be a list of names")
    keypoints = tuple(str(keypoint) for keypoint in tree["keypoints"])
    title = str(tree.get("name", name))
    for key in tree:
        if key not in KEYS and (meant := get_close_matches(str(key), KEYS, n=1)):
            raise ValueError(f"skeleton {title!r}: there is no such key as {key!r}; did you mean {meant[0]!r}?")
    edges = _pairs(tree["edges"], keypoints, title) if "edges" in tree else _coco_edges(tree, keypoints, title)
    pairs = tree.get("flip_pairs")
    try:
        return Skeleton(
            name=title,
            keypoints=keypoints,
            edges=edges,
            flip_pairs=left_right_pairs(keypoints) if pairs is None else _pairs(pairs, keypoints, title),
            sigmas=_sigmas(tree.get("sigmas"), keypoints, title),
        )
    except ValidationError as error:
        raise ValueError("; ".join(fault["msg"] for fault in error.errors())) from error


def _pairs(pairs: Any, keypoints: tuple[str, ...], title: str) -> tuple[tuple[int, int], ...]:
    """Pairs of names or of indices from 0."""

    def index(end: Any) -> int:
        if isinstance(end, int):
            return end
        if end not in keypoints:
            raise ValueError(f"skeleton {title!r}: {end!r} is none of its keypoints {', '.join(keypoints)}")
        return keypoints.index(end)

    if any(not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"skeleton {title!r}: edges and flip_pairs are lists of pairs, got {pairs!r}")
    return tuple((index(a), index(b)) for a, b in pairs)


def _coco_edges(tree: Tree, keypoints: tuple[str, ...], title: str) -> tuple[tuple[int, int], ...]:
    """COCO's `skeleton`, which counts from 1; files that hold a 0 count from 0. Edges to nowhere are left out."""
    pairs = _pairs(tree.get("skeleton") or (), keypoints, title)
    if any(isinstance(end, str) for pair in tree.get("skeleton") or () for end in pair):
        return pairs
    first = 0 if any(0 in pair for pair in pairs) else 1
    edges = tuple((a - first, b - first) for a, b in pairs)
    kept = tuple((a, b) for a, b in edges if a != b and 0 <= a < len(keypoints) and 0 <= b < len(keypoints))
    if len(kept) < len(edges):
        logger.warning(
            "skeleton %s: %d of its %d edges lead to no keypoint and are not drawn; give `edges` in the data set's "
            "`skeleton`",
            title,
            len(edges) - len(kept),
            len(edges),
        )
    return kept


def _sigmas(given: Any, keypoints: tuple[str, ...], title: str) -> tuple[float, ...]:
    if isinstance(given, Mapping):
        if set(given) != set(keypoints):
            raise ValueError(f"skeleton {title!r}: sigmas are named for {sorted(given)}, the keypoints are {keypoints}")
        return tuple(float(given[name]) for name in keypoints)
    if isinstance(given, int | float):
        return (float(given),) * len(keypoints)
    if given is not None:
        return tuple(float(value) for value in given)
    registered = _registered(keypoints)
    if registered is not None:
        return registered.sigmas
    logger.warning(
        "skeleton %s has no sigmas, the constants of OKS: %s is taken for each of its %d keypoints; give `sigmas` in "
        "the data set's `skeleton`",
        title,
        DEFAULT_SIGMA,
        len(keypoints),
    )
    return (DEFAULT_SIGMA,) * len(keypoints)


@lru_cache(maxsize=64)
def map_keypoints(names: tuple[str, ...], model: tuple[str, ...]) -> tuple[int, ...]:
    """For each of the model's keypoints the index of the same one in `names`, -1 where there is none.

    The same are names that are spelled alike, or alike but for their spelling (`l_shoulder`, `left_shoulder`).
    """
    if len(set(names)) != len(names):
        raise ValueError(f"keypoint names must be distinct, got {', '.join(names)}")
    place = {name: index for index, name in enumerate(names)}
    canonical = canonical_names(names)
    # Two names of one set with the same meaning cannot be told apart by it.
    known = {name: index for index, name in enumerate(canonical) if canonical.count(name) == 1}
    wanted = canonical_names(model)
    return tuple(
        place.get(name, known.get(meaning, -1) if wanted.count(meaning) == 1 else -1)
        for name, meaning in zip(model, wanted, strict=True)
    )
