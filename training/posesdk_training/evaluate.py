"""Accuracy of a checkpoint or a bundle, decoded by the code that runs on the device."""

import contextlib
import copy
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posesdk.skeleton import COCO_17, Skeleton
from posesdk.sources import IMAGE_SUFFIXES, read_image
from posesdk_runtimes.errors import DataError
from posesdk_training.evaluated_model import MAX_PERSONS, EvaluatedModel

__all__ = [
    "STATS",
    "TALL",
    "FalsePositives",
    "KeypointAccuracy",
    "Matching",
    "Recall",
    "Results",
    "count_false_positives",
    "evaluate_keypoints",
    "match_results",
    "predict",
    "read_image_list",
    "recall_of_tall_persons",
]

STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The figures of the COCO keypoint evaluation, in pycocotools' order."""
TALL = 0.5
"""Share of the image's height above which a person counts as tall."""
PERSON = 1
"""COCO's category of persons."""

Image = NDArray[np.uint8]
Results = list[dict[str, Any]]
Progress = Callable[[int], None]


def read_image_list(annotations: Path, images: Path, limit: int | None = None) -> list[tuple[int, Path]]:
    """(image id, path) of every image of a COCO file, those without people included, by id; the first `limit` of them.

    Raises DataError for a file that is no COCO annotation file.
    """
    entries = sorted(_read(annotations)["images"], key=lambda entry: int(entry["id"]))[:limit]
    return [(int(entry["id"]), images / entry["file_name"]) for entry in entries]


def predict(
    model: EvaluatedModel,
    images: Sequence[tuple[int, Path]],
    *,
    min_score: float | None = None,
    on_image: Progress | None = None,
) -> Results:
    """COCO results of images (id, path): every person down to `min_score`, None the model's own, at most 30 an image.

    `on_image` is called with the number of images done. Raises SourceError for an image that cannot be read: leaving
    it out would change the figures.
    """
    floor = model.min_score if min_score is None else min_score
    results: Results = []
    for done, (image_id, path) in enumerate(images, start=1):
        poses = model.detect(_pixels(path)).above(floor)[:MAX_PERSONS]
        results += poses.to_coco(image_id, PERSON)
        if on_image is not None:
            on_image(done)
    return results


@dataclass(frozen=True, slots=True)
class KeypointAccuracy:
    """The ten `stats` by name (one that nothing falls under is left out), and what they were measured on.

    AR50 is the share of labelled persons that are found at OKS 0.5. `persons` counts the labelled ones: not crowd,
    with at least one keypoint.
    """

    stats: dict[str, float]
    images: int
    persons: int


def evaluate_keypoints(
    annotations: Path,
    results: Results,
    *,
    image_ids: Sequence[int] | None = None,
    skeleton: Skeleton = COCO_17,
) -> KeypointAccuracy:
    """COCO keypoint evaluation of results on all images of a file, or on `image_ids`.

    Raises DataError for a file that is no COCO keypoint file, ValueError for a result with a `bbox`, from which
    pycocotools would take its area.
    """
    if any("bbox" in result for result in results):
        raise ValueError("keypoint results must have no `bbox`: the area of a detection would be taken from it")
    truth, evaluation = _matched(annotations, results, image_ids, skeleton)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    stats = {name: float(value) for name, value in zip(STATS, evaluation.stats, strict=True) if value >= 0}
    chosen = set(evaluation.params.imgIds)
    persons = sum(
        not entry.get("iscrowd") and entry["num_keypoints"] > 0
        for entry in truth.anns.values()
        if entry["image_id"] in chosen
    )
    return KeypointAccuracy(stats, len(chosen), persons)


def _matched(
    annotations: Path, results: Results, image_ids: Sequence[int] | None, skeleton: Skeleton
) -> tuple[COCO, COCOeval]:
    """The ground truth, and an evaluation whose detections are matched to it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(_read(annotations))
        evaluation = COCOeval(truth, _detections(truth, results), "keypoints")
        evaluation.params.imgIds = sorted(truth.getImgIds() if image_ids is None else image_ids)
        evaluation.params.kpt_oks_sigmas = skeleton.sigma_array.astype(np.float64)
        evaluation.evaluate()
    return truth, evaluation


@dataclass(frozen=True, slots=True)
class Recall:
    """Labelled persons that are found at OKS 0.5, out of all, at scores of at least `threshold`."""

    found: int
    persons: int
    threshold: float


def recall_of_tall_persons(
    annotations: Path,
    results: Results,
    *,
    threshold: float,
    image_ids: Sequence[int] | None = None,
    skeleton: Skeleton = COCO_17,
) -> Recall:
    """How many of the labelled persons whose box is more than half as high as the image are found at OKS 0.5.

    Images whose height the annotations do not give have no tall persons.
    """
    kept = [result for result in results if result["score"] >= threshold]
    truth, evaluation = _matched(annotations, kept, image_ids, skeleton)
    whole_range = evaluation.params.areaRng[0]
    found = persons = 0
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != whole_range:
            continue
        for number, match, ignored in zip(image["gtIds"], image["gtMatches"][0], image["gtIgnore"], strict=True):
            person = truth.anns[number]
            height = truth.imgs[person["image_id"]].get("height", float("inf"))
            if not ignored and person["bbox"][3] > TALL * height:
                persons += 1
                found += bool(match > 0)
    return Recall(found, persons, threshold)


@dataclass(frozen=True, slots=True)
class Matching:
    """Results matched to labelled persons at OKS 0.5; results on ignored persons are left out.

    `scores` (D,) and whether each is `right` (D,); `matches` pairs right results with their annotations, `wrong` are
    the others; `persons` counts all that are to be found.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    matches: tuple[tuple[dict[str, Any], dict[str, Any]], ...]
    persons: int
    wrong: tuple[dict[str, Any], ...] = ()


def match_results(
    annotations: Path,
    results: Results,
    *,
    image_ids: Sequence[int] | None = None,
    skeleton: Skeleton = COCO_17,
) -> Matching:
    """COCO's greedy matching of results to persons, one to one by descending score."""
    truth, evaluation = _matched(annotations, results, image_ids, skeleton)
    scores: list[float] = []
    right: list[bool] = []
    matches, wrong = [], []
    persons = 0
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != evaluation.params.areaRng[0]:
            continue
        persons += int(np.sum(image["gtIgnore"] == 0))
        rows = zip(image["dtIds"], image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True)
        for number, score, match, ignored in rows:
            if ignored:
                continue
            scores.append(score)
            right.append(bool(match > 0))
            if match > 0:
                matches.append((results[int(number) - 1], truth.anns[int(match)]))
            else:
                wrong.append(results[int(number) - 1])
    return Matching(np.array(scores), np.array(right, dtype=np.bool_), tuple(matches), persons, tuple(wrong))


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Persons found in `images` without any, at scores of at least `threshold`."""

    images: int
    persons: int
    threshold: float

    @property
    def per_image(self) -> float:
        """Persons an image."""
        return self.persons / max(self.images, 1)


def count_false_positives(
    model: EvaluatedModel, folder: Path, *, threshold: float | None = None, on_image: Progress | None = None
) -> FalsePositives:
    """Persons that a model finds in a folder of pictures without people; `threshold` None is the model's own.

    Raises DataError for a folder without pictures.
    """
    level = model.spec.decode.score_threshold if threshold is None else threshold
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"no pictures in {folder}; give a folder of pictures without people")
    persons = 0
    for done, path in enumerate(paths, start=1):
        persons += len(model.detect(_pixels(path)).above(level))
        if on_image is not None:
            on_image(done)
    return FalsePositives(len(paths), persons, level)


def _pixels(path: Path) -> Image:
    """As they are stored: annotations know nothing of an EXIF orientation."""
    return read_image(path, oriented=False)


def _read(annotations: Path) -> dict[str, Any]:
    try:
        tree = json.loads(annotations.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read annotations {annotations}: {error}") from error
    if not isinstance(tree, dict) or not {"images", "annotations", "categories"} <= tree.keys():
        raise DataError(
            f"annotations {annotations} are not in COCO format: expected an object with images, annotations"
        )
    for entry in tree["annotations"]:
        if missing := {"num_keypoints", "area", "bbox", "keypoints"} - entry.keys():
            raise DataError(f"annotation {entry.get('id')} of {annotations} lacks {sorted(missing)}: no keypoint file")
    return tree


def _coco(tree: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = tree
    coco.createIndex()
    return coco


def _detections(truth: COCO, results: Results) -> COCO:
    """Results as pycocotools wants them; its own reader takes neither an empty list nor leaves its input alone."""
    if results:
        return truth.loadRes(copy.deepcopy(results))
    return _coco({"images": truth.dataset["images"], "annotations": [], "categories": truth.dataset["categories"]})
