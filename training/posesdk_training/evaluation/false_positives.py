"""Persons that a model sees where nobody is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.sources import IMAGE_SUFFIXES
from posesdk_runtimes.errors import DataError
from posesdk_training.evaluated_model import EvaluatedModel
from posesdk_training.evaluation.predict import read_stored

__all__ = ["FalsePositives", "find_false_positives", "list_pictures"]


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Scores of all persons found in `images` pictures without any."""

    images: int
    scores: NDArray[np.float32]

    def count(self, threshold: float) -> int:
        """Persons that score at least `threshold`."""
        return int(np.count_nonzero(self.scores >= np.float32(threshold)))

    def per_image(self, threshold: float) -> float:
        """Persons an image that score at least `threshold`."""
        return self.count(threshold) / max(self.images, 1)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder by name. Raises DataError for a folder without any."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"no pictures in {folder}; give a folder of pictures without people")
    return paths


def find_false_positives(
    model: EvaluatedModel, paths: list[Path], *, on_image: Callable[[int], None] | None = None
) -> FalsePositives:
    """Persons of any score that a model finds in pictures without people.

    `on_image` is called with the number of pictures done. Raises SourceError for a picture that cannot be read.
    """
    scores = []
    for done, path in enumerate(paths, start=1):
        scores.append(model.detect(read_stored(path)).scores)
        if on_image is not None:
            on_image(done)
    return FalsePositives(len(paths), np.concatenate(scores))
