"""The command `posesdk-train shard`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting, show_line
from posesdk_training.commands.arguments import Images

__all__ = ["shard"]


def shard(
    annotations: Annotated[Path, typer.Option(help="Annotation file: COCO keypoints, CrowdPose or OCHuman.")],
    images: Images,
    output: Annotated[Path, typer.Option(help="Folder for the shards; an interrupted run in it goes on.")],
    shard_size: Annotated[int, typer.Option(min=1, help="Images a shard.")] = 1000,
    resize: Annotated[int | None, typer.Option(min=32, help="Longest side in px; larger images are reduced.")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG or WebP quality of reduced images.")] = 90,
    seed: Annotated[int, typer.Option(help="Of the order of the images.")] = 0,
) -> None:
    """Write an annotated set as WebDataset shards, to be streamed by training."""
    with reporting():
        from posesdk_training.data.shard_index import counted
        from posesdk_training.data.shard_sample import Resize
        from posesdk_training.data.shard_writer import ShardSettings, write_shards
        from posesdk_training.progress import progress

        settings = ShardSettings(shard_size, None if resize is None else Resize(resize, quality), seed)
        with progress("images", None) as advance:
            index = write_shards(annotations, images, output, settings, advance=advance)
        left_out = f"; {len(index.skipped)} left out, see {output / 'index.json'}" if index.skipped else ""
        megabytes = sum(entry.size for entry in index.shards) / 1e6
        show_line(
            f"{index.images} images, {index.annotations} annotations in "
            f"{counted(len(index.shards), 'shard')} of {output}, {megabytes:.1f} MB{left_out}"
        )
