"""The command `posesdk-train synthesize`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import usage_errors

__all__ = ["synthesize"]


def synthesize(
    assets: Annotated[Path, typer.Option(help="MakeHuman's CC0 assets: a folder, or a tar archive of one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; an interrupted run in it goes on.")],
    backgrounds: Annotated[
        list[str] | None,
        typer.Option(help="Folder of photos without people, or ANNOTATIONS.json+FOLDER; repeatable."),
    ] = None,
    layouts: Annotated[
        Path | None, typer.Option(help="COCO keypoints: most pictures place people as these photos do.")
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Pictures.")] = 1000,
    cutouts: Annotated[
        int, typer.Option(min=0, help="People cut out (PNG with alpha) into OUTPUT/cutouts, for augment.occluders.")
    ] = 0,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Side of a picture, px.")] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other people and pictures.")] = 0,
    people: Annotated[str, typer.Option(help="People in a picture, as LEAST-MOST.")] = "1-12",
    workers: Annotated[int, typer.Option(min=1, help="Processes; they change nothing but the time.")] = 1,
    webp: Annotated[bool, typer.Option("--webp", help="Half the size of JPEG, 10 ms more a picture.")] = False,
) -> None:
    """Make annotated pictures of rendered people: a COCO file, images, exact visibility and masks."""
    with reporting():
        from posesdk_training.progress import progress
        from posesdk_training.synthetic.assets import opened_assets
        from posesdk_training.synthetic.generator import Settings
        from posesdk_training.synthetic.production import produce

        with usage_errors():
            limits = _people(people)
        # Mesa draws with as many threads as there are cores; here a process is meant to use one.
        os.environ.setdefault("LP_NUM_THREADS", "1")
        with opened_assets(assets) as folder:
            settings = Settings(folder, tuple(backgrounds or ()), size, seed, limits, layouts)
            suffix = ".webp" if webp else ".jpg"
            if count:
                with progress("pictures", count) as advance:
                    path = produce(settings, output, count=count, workers=workers, suffix=suffix, on_picture=advance)
                typer.echo(str(path))
            if cutouts:
                alone = replace(settings, layouts=None, people=(1, 1), product="cutouts")
                with progress("cutouts", cutouts) as advance:
                    path = produce(
                        alone, output / "cutouts", count=cutouts, workers=workers, suffix=".png", on_picture=advance
                    )
                typer.echo(str(path))


def _people(text: str) -> tuple[int, int]:
    """`1-12` -> (1, 12); `3` -> (3, 3)."""
    least, dash, most = text.partition("-")
    try:
        limits = int(least), int(most if dash else least)
    except ValueError as error:
        raise ValueError(f"--people {text!r} is no range; give it as LEAST-MOST, for example 1-12") from error
    if not 0 <= limits[0] <= limits[1] <= 40 or limits[1] == 0:
        raise ValueError(f"--people {text!r}: the least must not be above the most, which is 1 to 40")
    return limits
