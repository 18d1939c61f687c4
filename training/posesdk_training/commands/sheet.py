"""The command `posesdk-train sheet`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import Device, Model, RuntimeName, usage_errors

__all__ = ["sheet"]


def sheet(
    model: Model,
    images: Annotated[Path, typer.Option(help="Folder of photos.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write: .png or .jpg.")],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations of the photos: say how many people are labelled.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many photos.")] = 24,
    seed: Annotated[int, typer.Option(help="Another seed takes other photos.")] = 0,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score of a person; the model's own.")
    ] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
) -> None:
    """Draw what a model finds in some photos of a folder into one picture, to be looked at."""
    with reporting():
        from posesdk_training.evaluated_model import open_model
        from posesdk_training.files import require_files
        from posesdk_training.report.sheet import choose_photos, labelled_photos, write_sheet

        require_files({"--annotations": annotations})
        listed = persons = None
        with usage_errors(), open_model(model, runtime=runtime, device=device) as evaluated:
            if annotations is not None:
                listed, persons = labelled_photos(annotations, images, evaluated.spec.skeleton)
            photos = choose_photos(images, count, seed=seed, listed=listed, persons=persons)
            write_sheet(photos, evaluated, output, score=score, oriented=annotations is None)
        typer.echo(str(output))
