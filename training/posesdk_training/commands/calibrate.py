"""The command `posesdk-train calibrate`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import Device, Images, Limit

if TYPE_CHECKING:
    from posesdk_training.evaluation.calibrate import Threshold, Thresholds
    from posesdk_training.evaluation.false_positives import FalsePositives

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors).")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations; not those of the evaluation.")],
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint with the thresholds.")],
    no_people: Annotated[
        Path | None, typer.Option(help="Folder of pictures without people; not those of the evaluation.")
    ] = None,
    max_false_positives: Annotated[
        float, typer.Option(min=0, help="Persons that may be found in a picture of --no-people, on average.")
    ] = 0.1,
    limit: Limit = None,
    device: Device = "auto",
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
) -> None:
    """Choose the score thresholds with the best F1 on labelled photos and write them into a checkpoint."""
    with reporting():
        from posesdk_training.checkpoint import load_checkpoint
        from posesdk_training.evaluated_model import open_model
        from posesdk_training.evaluation.calibrate import choose_thresholds, write_thresholds
        from posesdk_training.evaluation.false_positives import find_false_positives, list_pictures
        from posesdk_training.evaluation.ground_truth import load_ground_truth
        from posesdk_training.evaluation.predict import predict
        from posesdk_training.files import require_files, require_folders
        from posesdk_training.progress import progress

        require_files({"--annotations": annotations})
        require_folders(output)
        load_checkpoint(checkpoint)  # which a bundle is not: its thresholds would be lost at the end
        pictures = [] if no_people is None else list_pictures(no_people)
        with open_model(checkpoint, device=device) as model:
            truth = load_ground_truth(annotations, model.spec.skeleton, limit=limit)
            listed = truth.existing_images(images, option="--images")
            with progress("detecting", len(listed)) as advance:
                found = predict(model, listed, min_score=0.0, category=truth.category, on_image=advance)
            with progress("without people", len(pictures)) as advance:
                empty = find_false_positives(model, pictures, on_image=advance) if pictures else None
        chosen = choose_thresholds(truth, found.results, empty=empty, limit=max_false_positives)
        write_thresholds(checkpoint, output, chosen, half=half)
        for line in _lines(chosen, len(listed), empty):
            typer.echo(line)
        typer.echo(str(output))


def _lines(chosen: "Thresholds", photos: int, empty: "FalsePositives | None") -> Iterator[str]:
    best, person, keypoint = chosen.best, chosen.person, chosen.keypoint
    yield f"best F1 of persons: {_figures(best)} at OKS 0.5 on {photos} photos{_false(best, empty)}"
    if empty is not None:
        yield f"persons: {_figures(person)}{_false(person, empty)}"
    yield f"keypoints: {_figures(keypoint)}"


def _figures(threshold: "Threshold") -> str:
    return f"score {threshold.score:.4f} or more, precision {threshold.precision:.3f}, recall {threshold.recall:.3f}"


def _false(threshold: "Threshold", empty: "FalsePositives | None") -> str:
    if empty is None:
        return ""
    return f", {empty.per_image(threshold.score):.3f} false persons a picture on {empty.images} without people"
