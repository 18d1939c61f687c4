"""COCO results of a model, and in the same pass those of its initial poses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.poses import Poses
from posesdk.sources import read_image
from posesdk_training.evaluated_model import MAX_PERSONS, EvaluatedModel
from posesdk_training.evaluation.backends import Results

__all__ = ["Predictions", "predict", "read_stored"]

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Predictions:
    """COCO `results`; where asked for, `initial` ones of the poses before adaptation, and net px per image px by id."""

    results: Results = field(default_factory=list)
    initial: Results = field(default_factory=list)
    net_scales: dict[int, float] = field(default_factory=dict)


def predict(
    model: EvaluatedModel,
    images: Sequence[tuple[int, Path]],
    *,
    min_score: float | None = None,
    category: int = 1,
    initial: bool = False,
    on_image: Progress | None = None,
) -> Predictions:
    """COCO results of images (id, path): every person down to `min_score`, None the model's own, at most 30 an image.

    `on_image` is called with the number of images done. Raises SourceError for an image that cannot be read: leaving
    it out would change the figures. ValueError for initial poses of a model that runs at several scales.
    """
    floor = model.min_score if min_score is None else min_score
    found = Predictions()
    for done, (image_id, path) in enumerate(images, start=1):
        image = read_stored(path)
        found.results.extend(_to_coco(model.detect(image), floor, image_id, category))
        if initial:
            found.initial.extend(_to_coco(model.detect_initial(image), floor, image_id, category))
            found.net_scales[image_id] = model.net_scale(image)
        if on_image is not None:
            on_image(done)
    return found


def read_stored(path: Path) -> NDArray[np.uint8]:
    """An image (H, W, 3) uint8 BGR as it is stored: annotations know nothing of an EXIF orientation."""
    return read_image(path, oriented=False)


def _to_coco(poses: Poses, floor: float, image_id: int, category: int) -> Results:
    return poses.above(floor)[:MAX_PERSONS].to_coco(image_id, category)
