"""The command `posesdk-train pack`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_runtimes.errors import DataError
from posesdk_training.commands.arguments import Config, Overrides, usage_errors
from posesdk_training.settings.recipe import find_recipe

__all__ = ["pack"]


def pack(
    config: Config,
    output: Annotated[Path, typer.Option(help="FILE.pack; the files are called FILE-1.pack, FILE-2.pack, ...")],
    set_: Overrides = None,
    max_mib: Annotated[float, typer.Option(min=1, help="Size of a file in MiB, at most.")] = 60.0,
    long_side: Annotated[int, typer.Option(min=32, help="Longer photos are shrunk to this many px.")] = 320,
) -> None:
    """Pack the photos and annotations of a configuration into a few files, to be carried to a rented machine."""
    with reporting():
        from itertools import count

        from posesdk_training.config import load_config
        from posesdk_training.data.coco import load_keypoint_set
        from posesdk_training.data.resident.pack import write_packs
        from posesdk_training.files import require_folders
        from posesdk_training.progress import progress

        with usage_errors():
            settings = load_config(find_recipe(config), tuple(set_ or ()))
        require_folders(output)
        if streamed := [entry.name for entry in settings.data.sets if entry.shards is not None]:
            raise DataError(
                f"cannot pack the data sets {', '.join(streamed)}: they are in shards, which travel as such"
            )
        sets = [load_keypoint_set(entry, settings.model.skeleton) for entry in settings.data.sets]
        with progress("packing", sum(len(entry.images) for entry in sets)) as advance:
            done = count(1)
            paths = write_packs(
                sets, output, max_mib=max_mib, long_side=long_side, on_photo=lambda: advance(next(done))
            )
        for path in paths:
            typer.echo(str(path))
