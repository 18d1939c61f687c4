"""The pictures that variants are verified on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk.coco_accuracy import LabelledPersons
from posesdk.labelled_pictures import PictureFiles, read_pictures
from posesdk.spec import ModelSpec
from posesdk_converters.calibration import CalibrationImages
from posesdk_converters.request import Request
from posesdk_runtimes.errors import SourceError

__all__ = ["Photos", "open_photos"]

MOST_UNLABELLED = 100
"""Calibration images that are looked at where there are no labelled ones."""


@dataclass(frozen=True, eq=False)
class Photos:
    """Pictures by name, with labels or without; `description` names them in figures."""

    pictures: PictureFiles | Sequence[tuple[str, NDArray[np.uint8]]]
    labels: Sequence[LabelledPersons] | None
    description: str

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        return iter(self.pictures)


def open_photos(
    request: Request, calibration: CalibrationImages | None, golden: NDArray[np.uint8], spec: ModelSpec
) -> Photos:
    """The labelled photos of `--evaluate`, else calibration images, else the golden picture alone.

    Raises SourceError where the annotations or a picture of theirs cannot be had.
    """
    if request.evaluate is not None:
        files = read_pictures(request.evaluate, spec.skeleton, images=request.images)
        if files.labels is None:
            raise SourceError(
                f"--evaluate {request.evaluate}: nobody is labelled in it, so there is no AP; name a COCO keypoint "
                "file with annotations, or leave it out: without labels, poses are compared on other pictures"
            )
        return Photos(files, files.labels, f"{request.evaluate.absolute().parent.name}-{len(files)}")
    if calibration is not None:
        paths = calibration.paths[:: max(1, len(calibration.paths) // MOST_UNLABELLED)][:MOST_UNLABELLED]
        return Photos(PictureFiles(calibration.source, paths), None, f"{len(paths)} of the calibration images")
    return Photos([("golden picture", golden)], None, "the golden picture")
