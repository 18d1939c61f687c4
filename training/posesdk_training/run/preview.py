"""Looking at a run while it goes on: poses on fixed photos, and the accuracy on a labelled set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.poses import Poses
from posesdk.sources import IMAGE_SUFFIXES
from posesdk_runtimes.errors import DataError
from posesdk_training.evaluated_model import EvaluatedModel
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import evaluate_keypoints
from posesdk_training.evaluation.predict import predict
from posesdk_training.files import write_picture
from posesdk_training.report.sheet import Photo, picture_sheet
from posesdk_training.settings.observation import PreviewConfig, ValidationConfig

__all__ = ["PREVIEW_FOLDER", "Preview", "Validation"]

PREVIEW_FOLDER = "preview"

Image = NDArray[np.uint8]


class Preview:
    """The fixed photos of a run: the first by name. Raises DataError for a folder without any."""

    def __init__(self, config: PreviewConfig) -> None:
        self._photos = [Photo(path) for path in _pictures(config.images)[: config.count]]

    def draw(self, model: EvaluatedModel) -> Image:
        """A sheet (H, W, 3) uint8 BGR of what the model shows at its own thresholds."""
        decode = model.spec.decode

        def detect(image: Image) -> Poses:
            found = model.detect(image).above(decode.score_threshold)
            return replace(found, keypoint_threshold=decode.keypoint_threshold)

        return picture_sheet(self._photos, detect)

    def write(self, sheet: Image, folder: Path, step: int) -> None:
        """Keeps a sheet as a picture of the run folder. Raises DataError when it cannot be written."""
        write_picture(folder / PREVIEW_FOLDER / f"{step:08d}.png", sheet)


class Validation:
    """The labelled set of a run. Raises DataError for annotations that cannot be read, or images that are missing."""

    def __init__(self, config: ValidationConfig, model: EvaluatedModel) -> None:
        self._truth = load_ground_truth(config.annotations, model.spec.skeleton, limit=config.limit)
        self._images = self._truth.existing_images(config.images, option="validation.images")

    def measure(self, model: EvaluatedModel) -> Mapping[str, float]:
        """AP and its like, of single-scale predictions on all images."""
        found = predict(model, self._images, category=self._truth.category)
        return evaluate_keypoints(self._truth, found.results).stats


def _pictures(images: Path | tuple[Path, ...]) -> list[Path]:
    if not isinstance(images, Path):
        if missing := [str(path) for path in images if not path.is_file()]:
            raise DataError(f"preview.images: no file {missing[0]}; give a folder of photos, or files that are there")
        return list(images)
    found = sorted(path for path in images.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"preview.images: no pictures in {images}; give a folder of photos")
    return found
