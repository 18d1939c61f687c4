"""The figures of an evaluation on a terminal, and as an entry of a manifest."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from posesdk.manifest import Accuracy
from posesdk_training.evaluation.keypoints import stats_of
from posesdk_training.evaluation.measure import measure

__all__ = ["manifest_entry", "measure", "show_report"]


def show_report(report: dict[str, Any]) -> None:
    """The figures of a `measure` report as a table on stdout."""
    data = report["data"]
    console = Console()
    table = Table(
        title=f"{report['conditions']['model']} on {data['images']} images, {data['persons']} labelled persons",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = stats_of(report["protocol"])
    for name in names:
        table.add_column(name, justify="right")
    table.add_row(*(f"{report['stats'][name]:.3f}" if name in report["stats"] else "-" for name in names))
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
    flip, evaluator = "on" if conditions["flip_test"] else "off", conditions["evaluator"]
    return (
        f"{report['data']['results']} results down to score {conditions['min_score']}, adaptation "
        f"{conditions['adaptation']}, flip {flip}, {conditions['variant']} ({conditions['precision']}) with "
        f"{conditions['runtime']} on {conditions['device']}, {evaluator} {conditions['versions'][evaluator]}"
    )
