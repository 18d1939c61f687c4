"""The figures of an evaluation on a terminal, and as an entry of a manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from posesdk.manifest import Accuracy
from posesdk_training.evaluation.keypoints import stats_of

__all__ = ["manifest_entry", "show_report"]

GROUPS = {
    "large": "persons larger than 96 x 96 px",
    "large_whole": "of these, with three quarters of their keypoints labelled",
    "tall": "taller than half the image",
}
"""The groups of persons whose recall is shown."""


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
    for line in _lines(report):
        console.print(line, soft_wrap=True, highlight=False)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """The conditions, and the figures that do not stand in the table."""
    yield f"{report['data']['annotations']}: {_summary(report)}"
    threshold = report["conditions"]["score_threshold"]
    for row in report["recall"]:
        if row["score_threshold"] == threshold and row["persons"] and row["group"] in GROUPS:
            found = f"{row['found']} of {row['persons']} found at OKS 0.5 and score {threshold} or more"
            yield f"{GROUPS[row['group']]}: {found}, recall {row['recall']:.3f}"
    boxes = next(row for row in report["boxes"] if (row["area_mode"], row["expand"]) == ("ann", 0.25))
    if boxes["bbr"]:
        sizes = ", ".join(f"{size} {boxes['bbp'][size]:.1f} and {boxes['bbr'][size]:.1f}" for size in boxes["bbr"])
        yield f"boxes, precision and recall in percent (annotated area, grown by 0.25): {sizes}"
    if "upper_bound" in report:
        bound = report["upper_bound"]
        figures = (bound["initial"], bound["bounds"]["window_sum"]["stats"], bound["model"])
        initial, best, model = (f"{stats['AP']:.3f}" if "AP" in stats else "-" for stats in figures)
        yield (
            f"on {bound['images']} images with persons: AP {initial} without adaptation, {model} with it, {best} with "
            f"the best of {bound['window']} x {bound['window']} places around each keypoint"
        )
    if "false_positives" in report:
        empty = report["false_positives"]
        yield (
            f"without people: {empty['persons']} false positives in {empty['images']} pictures at score "
            f"{empty['score_threshold']} or more, {empty['per_image']:.2f} a picture"
        )


def manifest_entry(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a `measure` report as `posesdk-convert --accuracy` takes them into a bundle's manifest."""
    data, metrics = report["data"], dict(report["stats"])
    if report["tall_persons"]["persons"]:
        metrics["recall_taller_than_half_image"] = report["tall_persons"]["found"] / report["tall_persons"]["persons"]
    for row in report["recall"]:
        at_threshold = row["score_threshold"] == report["conditions"]["score_threshold"]
        if row["group"] == "large" and at_threshold and row["persons"]:
            metrics["recall_larger_than_96_px"] = row["recall"]
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
    sizes = "" if conditions["scales"] == [1.0] else f"input sizes {', '.join(map(str, conditions['scales']))}, "
    return (
        f"{report['data']['results']} results down to score {conditions['min_score']}, {_refinement(conditions)}, "
        f"flip {flip}, {sizes}{conditions['variant']} ({conditions['precision']}) with "
        f"{conditions['runtime']} on {conditions['device']}, {evaluator} {conditions['versions'][evaluator]}"
    )


def _refinement(conditions: dict[str, Any]) -> str:
    """What was done with the initial poses."""
    if "pose_nets" not in conditions:
        return f"adaptation {conditions['adaptation']}"
    names = [name for name in ("confidence", "similarity", "refinement") if conditions["pose_nets"][name]]
    return f"pose networks {' + '.join(names) or 'none'}"
