"""What can be converted: a checkpoint of the training, a bundle, or a model by its name."""

from pathlib import Path

from posesdk.bundle import default_bundle_path
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["load_source", "named_models"]

CHECKPOINT_SUFFIX = ".safetensors"


def named_models() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    folder = default_bundle_path().parent
    return {path.stem: path for path in sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))}


def load_source(source: Path) -> Checkpoint:
    """The checkpoint (`.safetensors`), the bundle (a file or a folder) or the model of that name.

    Raises CheckpointError or BundleError for what is none of these.
    """
    named = named_models()
    if not source.exists() and str(source) in named:
        return load_checkpoint(named[str(source)])
    if not source.exists():
        known = ", ".join(named) or "none, for the package was installed without its models"
        raise CheckpointError(
            f"cannot convert {source}: there is no such file, and no model of that name (known: {known}); check "
            "the path"
        )
    if source.suffix == CHECKPOINT_SUFFIX:
        return load_checkpoint(source)
    if source.is_dir() or source.suffix == ".posebundle":
        from posesdk_converters.importers.bundle import import_bundle

        return import_bundle(source)
    raise CheckpointError(
        f"cannot convert {source}: neither a checkpoint ({CHECKPOINT_SUFFIX}) nor a bundle (.posebundle); a published "
        "LOGO-CAP file goes with --from-logocap"
    )
