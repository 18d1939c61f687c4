"""The report folder of an evaluation: report.md, report.json, results.json, index.html and pictures/."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from posesdk.images import read_image
from posesdk.skeleton import COCO_17, Skeleton
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.evaluation.backends import Results
from posesdk_training.evaluation.ground_truth import GroundTruth, load_ground_truth
from posesdk_training.evaluation.matching import match_results
from posesdk_training.files import read_json, write_json, write_picture, write_text
from posesdk_training.progress import progress
from posesdk_training.report.cases import Case, Chosen, choose_cases, read_cases
from posesdk_training.report.compare import read_report
from posesdk_training.report.drawing import draw_found, draw_labelled
from posesdk_training.report.markdown import markdown_report
from posesdk_training.report.page import Shown, html_page
from posesdk_training.report.plots import matching_charts, size_chart

__all__ = ["Evaluation", "measured_evaluation", "saved_evaluation", "show_writing", "write_report"]

SIDE = 480
"""Long side of a picture in px."""
QUALITY = 80
"""JPEG quality of a picture."""
VIEWS = ("labelled", "found")
"""How the pictures of a case end."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a report is written from: the figures, the COCO results behind them, and the photos."""

    report: dict[str, Any]
    results: Results
    truth: GroundTruth
    images: Path
    skeleton: Skeleton
    score_threshold: float
    keypoint_threshold: float


def write_report(
    evaluation: Evaluation, folder: Path, *, count: int = 8, on_picture: Callable[[int], None] | None = None
) -> Path:
    """Writes the report into a folder, made where it is missing, with at most `count` pictures of a kind.

    Gives the path of index.html. A photo that cannot be read is named on the page instead. `on_picture` is called with
    the number of cases drawn. Raises DataError where the folder cannot be written.
    """
    level = evaluation.score_threshold
    cases = read_cases(evaluation.truth, evaluation.images, evaluation.results, threshold=level)
    charts = matching_charts(evaluation.truth, match_results(evaluation.truth, evaluation.results), level)
    sizes = size_chart(evaluation.truth, cases)
    charts += [sizes] if sizes else []
    chosen = choose_cases(cases, count)
    shown = _draw_all(chosen, evaluation, folder / "pictures", on_picture)
    write_text(folder / "report.md", markdown_report(evaluation.report))
    write_json(folder / "report.json", _with_settings(evaluation))
    write_text(folder / "results.json", json.dumps(evaluation.results) + "\n")
    write_text(folder / "index.html", html_page(evaluation.report, charts, shown))
    _remove_others(folder / "pictures", shown)
    return folder / "index.html"


def show_writing(evaluation: Evaluation, folder: Path, count: int) -> Path:
    """`write_report` with progress on stderr, where that is a terminal."""
    with progress("drawing", None) as advance:
        return write_report(evaluation, folder, count=count, on_picture=advance)


def measured_evaluation(
    report: dict[str, Any], results: Results, annotations: Path, images: Path, spec: ModelSpec
) -> Evaluation:
    """An evaluation as `measure` gives it, shown at the model's own thresholds."""
    truth = _ground_truth(report, annotations, spec.skeleton)
    levels = spec.decode.score_threshold, spec.decode.keypoint_threshold
    return Evaluation(report, results, truth, images, spec.skeleton, *levels)


def saved_evaluation(
    figures: Path, results: Path, annotations: Path, images: Path, *, score: float | None = None
) -> Evaluation:
    """An evaluation from the files that it was written to; `score` replaces the threshold of what is shown.

    A report without a skeleton is one of COCO's. Raises DataError for files that are no report or no COCO results, and
    for annotations of other images.
    """
    saved = read_report(figures)
    skeleton = Skeleton.model_validate(saved["skeleton"]) if "skeleton" in saved else COCO_17
    shown = {**saved.get("conditions", {}), **saved.get("shown", {})}
    level = shown.get("score_threshold", 0.0) if score is None else score
    report = {name: section for name, section in saved.items() if name not in ("shown", "skeleton")}
    truth = _ground_truth(report, annotations, skeleton)
    found = _read_results(results)
    return Evaluation(report, found, truth, images, skeleton, level, shown.get("keypoint_threshold", 0.0))


def _ground_truth(report: dict[str, Any], annotations: Path, skeleton: Skeleton) -> GroundTruth:
    ids = report.get("data", {}).get("image_ids")
    truth = load_ground_truth(annotations, skeleton, protocol=report.get("protocol"), image_ids=ids)
    if absent := sorted(set(truth.image_ids) - truth.images.keys()):
        raise DataError(f"{annotations} has no image {absent[0]}, which was measured; give the file of the evaluation")
    return truth


def _read_results(path: Path) -> Results:
    found = read_json(path, "results")
    needed = {"image_id", "keypoints", "score"}
    if not isinstance(found, list) or not all(isinstance(entry, dict) and needed <= entry.keys() for entry in found):
        raise DataError(f"{path} are no COCO keypoint results: expected a list of {', '.join(sorted(needed))}")
    return found


def _draw_all(
    chosen: dict[str, list[Chosen]], evaluation: Evaluation, folder: Path, on_picture: Callable[[int], None] | None
) -> dict[str, list[Shown]]:
    done: dict[int, Shown] = {}
    shown: dict[str, list[Shown]] = {}
    for kind, entries in chosen.items():
        shown[kind] = []
        for entry in entries:
            case = entry.case
            if case.image_id not in done:
                done[case.image_id] = _draw(case, evaluation, folder)
                if on_picture is not None:
                    on_picture(len(done))
            drawn = done[case.image_id]
            shown[kind].append(Shown(drawn.name, entry.reason, drawn.pictures, drawn.fault))
    return shown


def _remove_others(folder: Path, shown: dict[str, list[Shown]]) -> None:
    """Pictures of an earlier report in the same folder; what is not called as they are stays."""
    kept = {Path(picture[0]).name for cases in shown.values() for case in cases for picture in case.pictures}
    for view in VIEWS:
        for path in folder.glob(f"*-{view}.jpg"):
            if path.name not in kept and path.name.removesuffix(f"-{view}.jpg").isdigit():
                path.unlink(missing_ok=True)


def _draw(case: Case, evaluation: Evaluation, folder: Path) -> Shown:
    name = case.path.name
    try:
        image = read_image(case.path, oriented=False)
    except SourceError as error:
        return Shown(name, "", fault=str(error))
    skeleton, level = evaluation.skeleton, evaluation.keypoint_threshold
    persons, found = len(case.persons), len(case.found)
    views = {
        "labelled": (draw_labelled(image, case, skeleton, side=SIDE), f"{_people(persons)} labelled"),
        "found": (draw_found(image, case, skeleton, side=SIDE, keypoint_threshold=level), f"{_people(found)} found"),
    }
    pictures = []
    for view, (picture, caption) in views.items():
        file = f"{case.image_id}-{view}.jpg"
        write_picture(folder / file, picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
        text = f"{name} with {caption}" + (
            f", {len(case.missed)} missed" if view == "labelled" else f", {len(case.wrong)} wrong"
        )
        pictures.append((f"{folder.name}/{file}", text, caption, (picture.shape[1], picture.shape[0])))
    return Shown(name, "", tuple(pictures))


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _with_settings(evaluation: Evaluation) -> dict[str, Any]:
    """The report, with what is needed to make the page again from the file alone."""
    shown = {"score_threshold": evaluation.score_threshold, "keypoint_threshold": evaluation.keypoint_threshold}
    return {**evaluation.report, "shown": shown, "skeleton": evaluation.skeleton.model_dump(mode="json")}
