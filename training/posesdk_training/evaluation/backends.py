"""Two implementations of the COCO evaluation behind one function: pycocotools, and faster-coco-eval in C++."""

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import MissingDependencyError
from posesdk_training.evaluation.ground_truth import GroundTruth

__all__ = ["BACKENDS", "Backend", "Curves", "Results", "Setting", "curves", "new_evaluation"]

Backend = Literal["pycocotools", "faster"]
BACKENDS: dict[Backend, str] = {"pycocotools": "pycocotools", "faster": "faster-coco-eval"}
"""The distribution of each implementation."""

Results = list[dict[str, Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared, in COCO's terms; what is None has COCO's own value."""

    kind: Literal["keypoints", "bbox"] = "keypoints"
    thresholds: tuple[float, ...] | None = None
    areas: tuple[tuple[float, float], ...] | None = None
    detections: int | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """`precision` (T, R, A) at thresholds, recall points and area ranges, `recall` (T, A); -1 where nobody is."""

    precision: Floats
    recall: Floats


def curves(truth: GroundTruth, results: Results, setting: Setting, backend: Backend = "pycocotools") -> Curves:
    """COCO's evaluation of results on the images of `truth`.

    Raises MissingDependencyError where the backend is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = new_evaluation(truth, results, setting, backend)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name], np.float64) for name in ("precision", "recall"))
    return Curves(precision[:, :, 0, :, 0], recall[:, 0, :, 0])


def new_evaluation(truth: GroundTruth, results: Results, setting: Setting, backend: Backend = "pycocotools") -> Any:
    """An evaluation object of the backend, ready for `evaluate()`; it has copies of everything, and prints.

    Annotations and results are numbered from 1 in it, in their order. Raises ValueError for results on images that the
    annotations do not have.
    """
    coco_class, evaluation_class = _classes(backend)
    _check_images(truth, results)
    # An evaluation writes into annotations and results, and takes a person of number 0 for nobody.
    numbered = [entry | {"id": number} for number, entry in enumerate(truth.tree["annotations"], start=1)]
    annotated = truth.tree | {"annotations": numbered}
    actual = _coco(coco_class, annotated)
    # The backends' own readers take no empty list.
    found = actual.loadRes(copy.deepcopy(results)) if results else _coco(coco_class, annotated | {"annotations": []})
    evaluation = evaluation_class(actual, found, setting.kind)
    parameters = evaluation.params
    parameters.imgIds = list(truth.image_ids)
    parameters.catIds = [truth.category]
    if setting.kind == "keypoints":
        parameters.kpt_oks_sigmas = truth.sigmas
    if setting.thresholds is not None:
        parameters.iouThrs = np.array(setting.thresholds)
    if setting.areas is not None:
        parameters.areaRng = [list(bounds) for bounds in setting.areas]
        parameters.areaRngLbl = [str(index) for index in range(len(setting.areas))]
    if setting.detections is not None:
        parameters.maxDets = [setting.detections]
    return evaluation


def _check_images(truth: GroundTruth, results: Results) -> None:
    there = {entry["id"] for entry in truth.tree["images"]}
    if strange := sorted({result["image_id"] for result in results} - there):
        raise ValueError(
            f"results on image {strange[0]}, which annotations {truth.path} do not have: were they made with another "
            "file?"
        )


def _coco(coco_class: Any, tree: dict[str, Any]) -> Any:
    coco = coco_class()
    coco.dataset = tree
    coco.createIndex()
    return coco


def _classes(backend: Backend) -> tuple[Any, Any]:
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError as error:
        raise MissingDependencyError(
            "the backend 'faster' is faster-coco-eval, which is not installed: run `pip install faster-coco-eval`, or "
            "leave the backend at pycocotools"
        ) from error
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
