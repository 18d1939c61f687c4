"""The command `posesdk-train calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors).")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations; not those of the evaluation.")],
    images: Annotated[Path, typer.Option(help="Folder of the annotated images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint with the thresholds.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images by id.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
) -> None:
    """Choose the score thresholds with the best F1 on labelled photos and write them into a checkpoint."""
    with reporting():
        from posesdk_training.calibrate import choose_thresholds, write_thresholds
        from posesdk_training.evaluate import predict, read_image_list
        from posesdk_training.evaluated_model import open_model

        listed = read_image_list(annotations, images, limit)
        with open_model(checkpoint, device=device) as model:
            results = predict(model, listed, min_score=0.0)
            skeleton = model.spec.skeleton
        ids = [number for number, _ in listed]
        chosen = choose_thresholds(annotations, results, image_ids=ids, skeleton=skeleton)
        write_thresholds(checkpoint, output, chosen, half=half)
        typer.echo(
            f"persons: score {chosen.score:.4f} or more, precision {chosen.precision:.3f}, recall {chosen.recall:.3f} "
            f"at OKS 0.5 on {len(listed)} photos"
        )
        typer.echo(
            f"keypoints: score {chosen.keypoint:.4f} or more, precision {chosen.keypoint_precision:.3f}, "
            f"recall {chosen.keypoint_recall:.3f}"
        )
        typer.echo(str(output))
