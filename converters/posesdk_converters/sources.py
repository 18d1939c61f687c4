"""What can be converted: a checkpoint of the training, a bundle, or a model by its name."""

import os
from pathlib import Path

from posesdk.shipped import CHECKPOINT_SUFFIX, describe_shipped, shipped_bundle
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["load_source"]


def load_source(source: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint (`.safetensors`), the bundle (a file or a folder) or, by a string, the shipped model of that name.

    A name goes before a file of that name in the working folder, for which `./name` stands. Raises CheckpointError or
    BundleError for what is none of these.
    """
    named = shipped_bundle(source) if isinstance(source, str) else None
    if named is not None:
        return load_checkpoint(named.with_suffix(CHECKPOINT_SUFFIX))
    path = Path(source)
    if not path.exists():
        raise CheckpointError(
            f"cannot convert {source}: there is no such file, and no model of that name comes with posesdk: it "
            f"has {describe_shipped()}; check the path"
        )
    if path.suffix == CHECKPOINT_SUFFIX:
        return load_checkpoint(path)
    if path.is_dir() or path.suffix == ".posebundle":
        from posesdk_converters.importers.bundle import import_bundle

        return import_bundle(path)
    raise CheckpointError(
        f"cannot convert {source}: neither a checkpoint ({CHECKPOINT_SUFFIX}) nor a bundle (.posebundle); a published "
        "LOGO-CAP file goes with --from-logocap"
    )
