"""One evaluation with the conditions it was made under: what a figure has to carry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from posesdk import __version__
from posesdk.manifest import Accuracy
from posesdk_training.evaluate import (
    STATS,
    Results,
    count_false_positives,
    evaluate_keypoints,
    predict,
    read_image_list,
    recall_of_tall_persons,
)
from posesdk_training.evaluated_model import MAX_PERSONS, EvaluatedModel

__all__ = ["manifest_entry", "measure", "show_report"]

EVALUATOR = "pycocotools"
LIBRARIES = (EVALUATOR, "numpy", "opencv-python-headless")
"""What a figure depends on beside the model."""


def measure(
    model: EvaluatedModel,
    annotations: Path,
    images: Path,
    *,
    limit: int | None = None,
    min_score: float | None = None,
    no_people: Path | None = None,
) -> tuple[dict[str, Any], Results]:
    """Accuracy of a model on a COCO file, with its conditions, and the COCO results that it was measured on.

    With `no_people`, false positives in that folder too. All are plain JSON values. Progress is shown on stderr where
    that is a terminal. Raises what `predict` and `evaluate_keypoints` raise.
    """
    listed = read_image_list(annotations, images, limit)
    with _progress("detecting", len(listed)) as advance:
        results = predict(model, listed, min_score=min_score, on_image=advance)
    ids = [number for number, _ in listed]
    accuracy = evaluate_keypoints(annotations, results, image_ids=ids, skeleton=model.spec.skeleton)
    tall = recall_of_tall_persons(
        annotations,
        results,
        threshold=model.spec.decode.score_threshold,
        image_ids=ids,
        skeleton=model.spec.skeleton,
    )
    report: dict[str, Any] = {
        "stats": {name: round(value, 6) for name, value in accuracy.stats.items()},
        "data": {
            "annotations": str(annotations),
            "images": accuracy.images,
            "persons": accuracy.persons,
            "results": len(results),
            "image_ids": ids,
        },
        "tall_persons": {"found": tall.found, "persons": tall.persons, "score_threshold": tall.threshold},
        "conditions": _conditions(model, model.min_score if min_score is None else min_score),
    }
    if no_people is not None:
        with _progress("without people", None) as advance:
            found = count_false_positives(model, no_people, on_image=advance)
        report["false_positives"] = {
            "folder": str(no_people),
            "images": found.images,
            "persons": found.persons,
            "per_image": round(found.per_image, 4),
            "score_threshold": found.threshold,
        }
    return report, results


def show_report(report: dict[str, Any]) -> None:
    """The figures of a `measure` report as a table on stdout."""
    data = report["data"]
    console = Console()
    table = Table(
        title=f"{report['conditions']['model']} on {data['images']} images, {data['persons']} labelled persons",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in STATS:
        table.add_column(name, justify="right")
    table.add_row(*(f"{report['stats'][name]:.3f}" if name in report["stats"] else "-" for name in STATS))
    console.print(table)
    console.print(f"{data['annotations']}: {_summary(report)}", soft_wrap=True, highlight=False)
    tall = report["tall_persons"]
    console.print(
        f"taller than half the image: {tall['found']} of {tall['persons']} found at OKS 0.5 and score "
        f"{tall['score_threshold']} or more",
        soft_wrap=True,
        highlight=False,
    )
    if "false_positives" in report:
        found = report["false_positives"]
        console.print(
            f"without people: {found['persons']} false positives in {found['images']} pictures at score "
            f"{found['score_threshold']} or more, {found['per_image']:.2f} a picture",
            soft_wrap=True,
            highlight=False,
        )


def manifest_entry(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a `measure` report as `posesdk-convert --accuracy` takes them into a bundle's manifest."""
    data, metrics = report["data"], dict(report["stats"])
    if report["tall_persons"]["persons"]:
        metrics["recall_taller_than_half_image"] = report["tall_persons"]["found"] / report["tall_persons"]["persons"]
    if "false_positives" in report:
        metrics["false_positives_per_image"] = report["false_positives"]["per_image"]
    entry = Accuracy(
        variant=report["conditions"]["variant"],
        dataset=f"{Path(data['annotations']).parent.name or 'images'}-{data['images']}",
        images=data["images"],
        metrics=metrics,
        note=f"{data['persons']} labelled persons; {_summary(report)}",
    )
    return entry.model_dump(mode="json")


def _summary(report: dict[str, Any]) -> str:
    conditions = report["conditions"]
    flip = "on" if conditions["flip_test"] else "off"
    return (
        f"{report['data']['results']} results down to score {conditions['min_score']}, adaptation "
        f"{conditions['adaptation']}, flip {flip}, {conditions['variant']} ({conditions['precision']}) with "
        f"{conditions['runtime']} on {conditions['device']}, {EVALUATOR} {conditions['versions'][EVALUATOR]}"
    )


def _conditions(model: EvaluatedModel, min_score: float) -> dict[str, Any]:
    spec = model.spec
    return {
        "model": model.name,
        "variant": model.variant,
        "runtime": model.runtime,
        "device": model.device,
        "precision": model.precision,
        "input": spec.input.model_dump(mode="json", include={"resize", "side", "size", "multiple"}),
        "frame": spec.frame,
        "flip_test": spec.decode.flip_test,
        "adaptation": spec.adaptation.level,
        "center_threshold": spec.decode.center_threshold,
        "max_people": min(spec.decode.max_people, MAX_PERSONS),
        "duplicate_removal": {"distance": spec.decode.nms_distance, "keypoints": spec.decode.nms_keypoints},
        "min_score": min_score,
        "versions": {"posesdk": __version__, **{name: version(name) for name in LIBRARIES}},
    }


@contextmanager
def _progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
