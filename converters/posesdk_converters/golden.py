"""The self test of a bundle: one picture and the poses that the torch model finds in it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.pipeline import settled
from posesdk.poses import Poses
from posesdk.sources import read_image
from posesdk_converters.rendering.render import render_people
from posesdk_training.models.build import PoseModel
from posesdk_training.torch_runtime import torch_pipeline

__all__ = ["expected_poses", "golden_image"]

SEED = 0
SIZE = (240, 320)
PEOPLE = 2


def golden_image(path: Path | None) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 BGR at `path`, or a rendered one. Raises SourceError where it cannot be read."""
    if path is None:
        return render_people(SEED, people=PEOPLE, size=SIZE).image
    return read_image(path)


def expected_poses(model: PoseModel, image: NDArray[np.uint8], input_size: tuple[int, int] | None = None) -> Poses:
    """The poses of `image` as a detector on the torch model gives them, at its own or a fixed input size.

    Where none reaches the model's score threshold, those below it, so that a self test has something to compare.
    """
    spec = settled(model.spec, model.spec.decode, input_size)
    estimate = torch_pipeline(model, spec).run(image)
    poses = estimate.to_poses(spec, (image.shape[0], image.shape[1]))
    return poses.above(spec.decode.score_threshold) or poses
