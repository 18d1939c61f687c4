"""A checkpoint or a bundle, opened to be measured: one function from an image to every person in it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import open_bundle
from posesdk.detector import Detector
from posesdk.poses import Poses
from posesdk.spec import ModelSpec
from posesdk_training.checkpoint import load_model
from posesdk_training.torch_runtime import torch_device, torch_pipeline

__all__ = ["MAX_PERSONS", "MIN_SCORE", "EvaluatedModel", "open_model"]

Image = NDArray[np.uint8]

MIN_SCORE = 0.01
"""Results go down to this score; those of published models, whose scores are smaller, down to 0."""
MAX_PERSONS = 30
"""Persons that an image may have in the results."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model that is ready to be measured; `detect` gives every person of an image (H, W, 3) uint8 BGR."""

    name: str
    spec: ModelSpec
    runtime: str
    device: str
    precision: str
    detect: Callable[[Image], Poses]

    @property
    def min_score(self) -> float:
        """Score down to which persons go into the results."""
        return 0.0 if self.spec.frame == "published" else MIN_SCORE


@contextlib.contextmanager
def open_model(
    path: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    device: str = "auto",
    flip_test: bool | None = None,
    adaptation: Literal["full", "none"] | None = None,
) -> Iterator[EvaluatedModel]:
    """Opens a checkpoint (`.safetensors`, run by torch) or a bundle; what is None is the model's own.

    Raises ValueError for a runtime or an adaptation level that the file cannot be run with, and the errors of
    `load_model` and `Detector`.
    """
    if Path(path).suffix == ".safetensors":
        with _checkpoint(path, runtime, device, flip_test=flip_test, adaptation=adaptation) as model:
            yield model
        return
    if adaptation is not None:
        raise ValueError(f"{path} is a bundle, whose adaptation is fixed; give the checkpoint to change it")
    spec = open_bundle(path).spec
    with Detector(path, runtime=runtime, device=device, flip_test=flip_test, max_people=MAX_PERSONS) as detector:
        info = detector.info
        decode = spec.decode.model_copy(update={"flip_test": info.flip_test, "max_people": info.max_people})
        spec = spec.model_copy(update={"decode": decode})
        yield EvaluatedModel(info.model, spec, info.runtime, info.device, info.precision, detector.detect_all)


@contextlib.contextmanager
def _checkpoint(
    path: str | os.PathLike[str],
    runtime: str,
    device: str,
    *,
    flip_test: bool | None,
    adaptation: Literal["full", "none"] | None,
) -> Iterator[EvaluatedModel]:
    if runtime not in ("auto", "torch"):
        raise ValueError(f"{path} is a checkpoint, which torch runs; convert it to measure it with {runtime}")
    model = load_model(path)
    spec, place = model.spec, torch_device(device)
    if flip_test is not None:
        spec = spec.model_copy(update={"decode": spec.decode.model_copy(update={"flip_test": flip_test})})
    if adaptation is not None:
        spec = spec.model_copy(update={"adaptation": spec.adaptation.model_copy(update={"level": adaptation})})
    pipeline = torch_pipeline(model, spec, str(place))

    def detect(image: Image) -> Poses:
        found = pipeline.run(image)
        return Poses(
            keypoints=found.keypoints,
            keypoint_scores=found.keypoint_scores,
            scores=found.scores,
            image_size=(image.shape[0], image.shape[1]),
            skeleton=spec.skeleton,
            model=spec.name,
            timing=found.timing,
        )

    try:
        yield EvaluatedModel(spec.name, spec, "torch", str(place), "fp32", detect)
    finally:
        pipeline.close()
