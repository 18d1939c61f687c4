"""What a configuration file leaves to be filled in, on the tree that is read from it."""

from pathlib import Path
from typing import Any

from posesdk_training.data.model_skeleton import join_skeleton, replaces_skeleton, with_model_skeleton
from posesdk_training.models.build import preset
from posesdk_training.settings.data import URL
from posesdk_training.settings.overrides import merged

__all__ = ["completed"]

PAPER_SWITCHES: dict[str, dict[str, Any]] = {
    "loss": {
        "refined_target_sigma": 16.0,
        "gt_matching": "clamped_mean",
        "oks_weight": "similarity",
        "offset_normaliser": "cells",
    },
    "targets": {"offset_weight": "area"},
}
"""What `model.convention: paper` stands for where the configuration does not say otherwise."""


def completed(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the preset of its model, its skeleton, `data.root` before paths and the switches of its convention.

    Malformed sections are left as they are, for the validation that follows. Raises DataError for a skeleton that
    cannot be read, ValueError for a preset that there is not.
    """
    if isinstance(tree.get("model"), str):
        tree["model"] = preset(tree["model"])
    elif isinstance(tree.get("model"), dict) and "preset" in tree["model"]:
        tree["model"] = _derived(tree["model"])
    _join_root(tree)
    return _with_convention(with_model_skeleton(tree))


def _derived(tree: dict[str, Any]) -> dict[str, Any]:
    base = preset(tree["preset"]).model_dump()
    if replaces_skeleton(tree):  # which is replaced as a whole, and with it what is counted in keypoints
        del base["skeleton"], base["decode"]["nms_keypoints"]
    return merged(base, {key: value for key, value in tree.items() if key != "preset"})


def _join_root(tree: dict[str, Any]) -> None:
    """Puts `data.root` before the paths of sets, occluders and what a run is looked at with, validated later."""
    data = tree.get("data")
    if not isinstance(data, dict) or "root" not in data:
        return
    root = Path(str(data.pop("root")))
    augment = tree.get("augment")
    _join(root, augment.get("occluders") if isinstance(augment, dict) else None, "folder")
    _join(root, tree.get("validation"), "annotations", "images")
    _join(root, tree.get("preview"), "images")
    for entry in data.get("sets") or ():
        _join(root, entry, "annotations", "images")
        if isinstance(entry, dict) and isinstance(entry.get("shards"), str) and not URL.match(entry["shards"]):
            entry["shards"] = str(root / entry["shards"])
        if isinstance(entry, dict) and isinstance(entry.get("skeleton"), str):
            entry["skeleton"] = join_skeleton(root, entry["skeleton"])


def _join(root: Path, section: Any, *keys: str) -> None:
    """Puts `root` before the paths, and the lists of paths, of a section; whatever is malformed is left as it is."""
    for key in keys if isinstance(section, dict) else ():
        value = section.get(key)
        if isinstance(value, str):
            section[key] = root / value
        elif isinstance(value, list):
            section[key] = [root / entry if isinstance(entry, str) else entry for entry in value]


def _with_convention(tree: dict[str, Any]) -> dict[str, Any]:
    model = tree.get("model")
    convention = model.get("convention") if isinstance(model, dict) else getattr(model, "convention", None)
    return merged(PAPER_SWITCHES, tree) if convention == "paper" else tree
