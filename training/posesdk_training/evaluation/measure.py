"""One evaluation with the conditions it was made under: what a figure has to carry."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posesdk import __version__
from posesdk_training.evaluated_model import MAX_PERSONS, EvaluatedModel
from posesdk_training.evaluation.backends import BACKENDS, Backend, Results
from posesdk_training.evaluation.boxes import AREA_MODES, EXPANSIONS, evaluate_boxes
from posesdk_training.evaluation.false_positives import find_false_positives, list_pictures
from posesdk_training.evaluation.ground_truth import GroundTruth, ProtocolName, load_ground_truth
from posesdk_training.evaluation.keypoints import evaluate_keypoints
from posesdk_training.evaluation.matching import match_results, recall
from posesdk_training.evaluation.per_keypoint import PCK_SHARES, keypoint_figures
from posesdk_training.evaluation.predict import Predictions, predict
from posesdk_training.evaluation.upper_bound import MATCH_RULES, upper_bound
from posesdk_training.progress import progress

__all__ = ["Measurement", "measure"]

LIBRARIES = ("numpy", "opencv-python-headless")
"""What a figure depends on beside the model and the evaluator."""
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is measured: the first `limit` images by id, results down to `min_score`; what is None is the model's own.

    `oracle_window` adds the empirical upper bound, `no_people` false positives in a folder of pictures.
    """

    protocol: ProtocolName | None = None
    backend: Backend = "pycocotools"
    limit: int | None = None
    min_score: float | None = None
    no_people: Path | None = None
    oracle_window: int | None = None

    def check(self, scales: tuple[float, ...]) -> None:
        """Raises ValueError for what cannot be measured at these input scales."""
        if self.oracle_window is not None and self.oracle_window % 2 == 0:
            raise ValueError(f"the oracle window must be odd, so that it has a center, got {self.oracle_window}")
        if self.oracle_window is not None and len(scales) > 1:
            raise ValueError("the upper bound is that of the initial poses of one scale; leave out --scales")


def measure(
    model: EvaluatedModel, annotations: Path, images: Path, what: Measurement | None = None
) -> tuple[dict[str, Any], Results]:
    """Accuracy of a model on an annotation file, with its conditions, and the COCO results that it was measured on.

    All values are plain JSON; docs/evaluation.md says what each one is. Progress is shown on stderr where that is a
    terminal. Raises what `load_ground_truth`, `predict`, `evaluate_keypoints` and `list_pictures` raise.
    """
    chosen = what or Measurement()
    chosen.check(model.scales)
    truth = load_ground_truth(annotations, model.spec.skeleton, protocol=chosen.protocol, limit=chosen.limit)
    empty = None if chosen.no_people is None else list_pictures(chosen.no_people)
    floor = model.min_score if chosen.min_score is None else chosen.min_score
    listed = truth.existing_images(images, option="--images")
    with progress("detecting", len(listed)) as advance:
        found = predict(
            model,
            listed,
            min_score=floor,
            category=truth.category,
            initial=chosen.oracle_window is not None,
            on_image=advance,
        )
    report = _figures(truth, found, model, chosen, floor)
    if empty is not None:
        report["false_positives"] = _false_positives(model, empty, chosen.no_people)
    return _rounded(report), found.results


def _figures(
    truth: GroundTruth, found: Predictions, model: EvaluatedModel, chosen: Measurement, floor: float
) -> dict[str, Any]:
    accuracy = evaluate_keypoints(truth, found.results, backend=chosen.backend)
    threshold = model.spec.decode.score_threshold
    report: dict[str, Any] = {
        "protocol": truth.protocol,
        "stats": accuracy.stats,
        "data": {
            "annotations": str(truth.path),
            "images": accuracy.images,
            "persons": accuracy.persons,
            "results": len(found.results),
            "image_ids": list(truth.image_ids),
        },
        "tall_persons": _tall_persons(truth, found.results, threshold),
        "recall": _recall(truth, found.results, sorted({max(threshold, floor), floor}, reverse=True)),
        "boxes": _boxes(truth, found.results, chosen.backend),
        "keypoints": _keypoints(truth, found.results),
        "conditions": _conditions(model, floor, chosen.backend),
    }
    if chosen.oracle_window is not None:
        report["upper_bound"] = _upper_bound(truth, found, chosen.oracle_window, chosen.backend)
    return report


def _tall_persons(truth: GroundTruth, results: Results, threshold: float) -> dict[str, Any]:
    tall = recall(truth, results, threshold=threshold)["tall"]
    return {"found": tall.found, "persons": tall.persons, "score_threshold": threshold}


def _recall(truth: GroundTruth, results: Results, thresholds: list[float]) -> list[dict[str, Any]]:
    rows = []
    for threshold in thresholds:
        for part in recall(truth, results, threshold=threshold).values():
            rows.append(
                {
                    "group": part.group,
                    "score_threshold": part.threshold,
                    "found": part.found,
                    "persons": part.persons,
                    "recall": part.share,
                }
            )
    return rows


def _boxes(truth: GroundTruth, results: Results, backend: Backend) -> list[dict[str, Any]]:
    rows = []
    for mode in AREA_MODES:
        for expand in EXPANSIONS:
            found = evaluate_boxes(truth, results, area_mode=mode, expand=expand, backend=backend)
            rows.append(
                {
                    "area_mode": mode,
                    "expand": expand,
                    "bbp": found.precision,
                    "bbr": found.recall,
                    "persons": found.persons,
                }
            )
    return rows


def _keypoints(truth: GroundTruth, results: Results) -> dict[str, Any]:
    rows = keypoint_figures(truth, match_results(truth, results))
    return {
        "pck_shares": list(PCK_SHARES),
        "pck_of": "longer side of the annotated box",
        "matching": "OKS 0.5",
        "rows": [asdict(row) | {"pck": list(row.pck)} for row in rows],
    }


def _upper_bound(truth: GroundTruth, found: Predictions, window: int, backend: Backend) -> dict[str, Any]:
    """On the images with labelled persons alone, as the paper has it."""
    part = truth.of_images(sorted({person["image_id"] for person in truth.persons}))
    chosen = set(part.image_ids)

    def stats(results: Results) -> dict[str, float]:
        return evaluate_keypoints(part, [one for one in results if one["image_id"] in chosen], backend=backend).stats

    bounds = {}
    for rule in MATCH_RULES:
        bound = upper_bound(truth, found.initial, found.net_scales, window=window, match=rule)
        bounds[rule] = {
            "stats": stats(bound.results),
            "oks_before": bound.oks_before,
            "oks_after": bound.oks_after,
        }
    return {
        "window": window,
        "images": len(part.image_ids),
        "persons": len(part.persons),
        "initial": stats(found.initial),
        "bounds": bounds,
        "model": stats(found.results),
    }


def _false_positives(model: EvaluatedModel, paths: list[Path], folder: Path | None) -> dict[str, Any]:
    with progress("without people", len(paths)) as advance:
        found = find_false_positives(model, paths, on_image=advance)
    threshold = model.spec.decode.score_threshold
    return {
        "folder": str(folder),
        "images": found.images,
        "persons": found.count(threshold),
        "per_image": found.per_image(threshold),
        "score_threshold": threshold,
        "highest_score": float(found.scores.max(initial=0)),
    }


def _conditions(model: EvaluatedModel, min_score: float, backend: Backend) -> dict[str, Any]:
    spec = model.spec
    evaluator = BACKENDS[backend]
    return {
        "model": model.name,
        "variant": model.variant,
        "runtime": model.runtime,
        "device": model.device,
        "precision": model.precision,
        "skeleton": spec.skeleton.name,
        "input": spec.input.model_dump(mode="json", include={"resize", "side", "size", "multiple"}),
        "scales": list(model.scales),
        "frame": spec.frame,
        "flip_test": spec.decode.flip_test,
        "method": spec.method,
        "centers": spec.centers,
        **({"adaptation": spec.adaptation.level} if spec.method == "logocap" else {}),
        **({"pose_nets": spec.pose_nets.model_dump(mode="json")} if spec.method == "dac" else {}),
        "center_threshold": spec.decode.center_threshold,
        "max_people": min(spec.decode.max_people, MAX_PERSONS),
        "duplicate_removal": {"distance": spec.decode.nms_distance, "keypoints": spec.decode.nms_keypoints},
        "score_threshold": spec.decode.score_threshold,
        "keypoint_threshold": spec.decode.keypoint_threshold,
        "min_score": min_score,
        "evaluator": evaluator,
        "versions": {"posesdk": __version__, **{name: version(name) for name in (evaluator, *LIBRARIES)}},
    }


def _rounded(value: Any) -> Any:
    """The same tree with floats of six digits: what lies behind them is noise."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return value
