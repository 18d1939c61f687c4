"""The command `posesdk-train calibrate`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import Device, Images, Limit

if TYPE_CHECKING:
    from posesdk_training.evaluated_model import EvaluatedModel
    from posesdk_training.evaluation.calibrate import Threshold, Thresholds
    from posesdk_training.evaluation.false_positives import FalsePositives
    from posesdk_training.evaluation.ground_truth import GroundTruth
    from posesdk_training.evaluation.group_threshold import GroupThreshold

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
    grouping: Annotated[
        bool,
        typer.Option("--grouping/--no-grouping", help="Choose from which similarity on DAC's poses are one person's."),
    ] = True,
    limit: Limit = None,
    device: Device = "auto",
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
) -> None:
    """Choose the score thresholds with the best F1 on labelled photos and write them into a checkpoint.

    Before them, for DAC with its similarity network, the grouping threshold by which the persons are then found.
    """
    with reporting():
        from posesdk_training.checkpoint import load_checkpoint
        from posesdk_training.evaluated_model import open_model
        from posesdk_training.evaluation.calibrate import choose_thresholds, with_group_threshold, write_thresholds
        from posesdk_training.evaluation.false_positives import find_false_positives, list_pictures
        from posesdk_training.evaluation.ground_truth import load_ground_truth
        from posesdk_training.evaluation.group_threshold import groups_by_similarity
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
            grouped = _grouping(model, truth, listed) if grouping and groups_by_similarity(model.spec) else None
            if grouped is not None:
                spec = with_group_threshold(model.spec, grouped.chosen)
                model = replace(model, pipeline=replace(model.pipeline, spec=spec))
            with progress("detecting", len(listed)) as advance:
                found = predict(model, listed, min_score=0.0, category=truth.category, on_image=advance)
            with progress("without people", len(pictures)) as advance:
                empty = find_false_positives(model, pictures, on_image=advance) if pictures else None
        chosen = choose_thresholds(truth, found.results, empty=empty, limit=max_false_positives)
        group_threshold = None if grouped is None else grouped.chosen
        write_thresholds(checkpoint, output, chosen, half=half, group_threshold=group_threshold)
        if grouped is not None:
            typer.echo(_grouping_line(grouped))
        for line in _lines(chosen, len(listed), empty):
            typer.echo(line)
        typer.echo(str(output))


def _grouping(model: "EvaluatedModel", truth: "GroundTruth", listed: Sequence[tuple[int, Path]]) -> "GroupThreshold":
    from posesdk_training.evaluation.group_threshold import choose_group_threshold, collect_pairs
    from posesdk_training.progress import progress

    with progress("comparing poses", len(listed)) as advance:
        pairs = collect_pairs(model, truth, listed, on_image=advance)
    return choose_group_threshold(pairs, model.spec.pose_nets.group_threshold, truth.path)


def _grouping_line(grouped: "GroupThreshold") -> str:
    pairs = grouped.pairs
    before, after = (
        f"{threshold:.4f}, F1 {pairs.f1(threshold):.3f}" for threshold in (grouped.present, grouped.chosen)
    )
    number = f"{len(pairs.same)} pairs of poses, {int(pairs.same.sum())} of them one person's"
    return f"grouping: similarity above {after}; before above {before}; on {number}"


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
