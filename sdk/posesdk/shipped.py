"""The models that come with the package, by their names."""

import os
from pathlib import Path

from posesdk.bundle import default_bundle_path, models_folder, open_bundle
from posesdk_runtimes.errors import BundleError

__all__ = ["BUNDLE_SUFFIX", "CHECKPOINT_SUFFIX", "describe_shipped", "find_bundle", "shipped_bundle", "shipped_name"]

BUNDLE_SUFFIX = ".posebundle"
CHECKPOINT_SUFFIX = ".safetensors"
"""Of the weights that a bundle was made from; they lie beside it, under its name."""


def find_bundle(model: str | os.PathLike[str] | None) -> Path:
    """The bundle that is meant: None is the default model, a string the name of a shipped one or a path, else a path.

    A name goes before a file of that name in the working folder, for which `./name` stands. Raises BundleError that
    lists the shipped models for a word that is neither, and for a default model that is not there.
    """
    if model is None:
        return default_bundle_path()
    if not isinstance(model, str):
        return Path(model)
    named = shipped_bundle(model)
    if named is None and _may_be_name(model) and not os.path.exists(model):
        raise BundleError(
            f"cannot open bundle {model}: there is no such file or folder, and no model of that name comes with "
            f"posesdk: it has {describe_shipped()}; check the path"
        )
    return named or Path(model)


def shipped_bundle(name: str) -> Path | None:
    """The shipped bundle of that name, which is that of its file or the model's own id; None if there is none."""
    bundles = _bundles()
    if name in bundles or not _may_be_name(name):
        return bundles.get(name)
    return next((path for path in bundles.values() if open_bundle(path).manifest.id == name), None)


def shipped_name(bundle: Path) -> str | None:
    """The name of the shipped bundle at that path; None for one that is not shipped."""
    return next((name for name, path in _bundles().items() if path == bundle), None)


def describe_shipped() -> str:
    """The names in words, each with the model's own id where that is another one."""
    bundles = _bundles()
    if not bundles:
        return "none, for it was installed without its models"
    ids = {name: open_bundle(path).manifest.id for name, path in bundles.items()}
    return ", ".join(name if own == name else f"{name} ({own})" for name, own in ids.items())


def _bundles() -> dict[str, Path]:
    return {path.stem: path for path in sorted(models_folder().glob(f"*{BUNDLE_SUFFIX}"))}


def _may_be_name(text: str) -> bool:
    """Paths hold a separator or end as the files of models do."""
    return Path(text).name == text and Path(text).suffix not in (BUNDLE_SUFFIX, CHECKPOINT_SUFFIX)
