"""A checkpoint or a bundle, opened to be measured: one function from an image to every person in it."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import open_bundle
from posesdk.fused import FusedPipeline
from posesdk.manifest import FLOAT_VARIANT
from posesdk.methods import method_of
from posesdk.pipeline import Estimate, Pipeline, open_pipeline
from posesdk.poses import Poses
from posesdk.preprocess import make_letterbox
from posesdk.shipped import find_bundle
from posesdk.spec import ModelSpec
from posesdk.variants import select_variant
from posesdk_training.checkpoint import load_model
from posesdk_training.evaluation.multi_scale import merge_scales, scaled
from posesdk_training.evaluation.remembering import RememberingRuntime
from posesdk_training.torch_runtime import torch_device, torch_pipeline

__all__ = ["MAX_PERSONS", "MIN_SCORE", "EvaluatedModel", "Level", "PoseNets", "open_model"]

Level = Literal["full", "partial", "none"]
"""How far the poses are adapted: by attraction maps and heatmaps, by attraction maps alone, not at all."""

PoseNets = Literal["none", "confidence", "similarity", "all"]
"""Up to which of its networks DAC looks at poses, in the order of Table 6 of its paper; the last is refinement."""

Image = NDArray[np.uint8]

MIN_SCORE = 0.01
"""Results go down to this score; those of published models, whose scores are smaller, down to 0."""
MAX_PERSONS = 30
"""Persons that an image may have in the results."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model that is ready to be measured, and what runs it; the `variant` of a checkpoint is "float".

    It runs at each of the `scales`, in parts of its own input size.
    """

    name: str
    variant: str
    pipeline: Pipeline
    runtime: str
    device: str
    precision: str
    scales: tuple[float, ...] = (1.0,)

    @property
    def spec(self) -> ModelSpec:
        """The model's specification, with the settings that are in force."""
        return self.pipeline.spec

    @property
    def min_score(self) -> float:
        """Score down to which persons go into the results."""
        return 0.0 if self.spec.frame == "published" else MIN_SCORE

    def detect(self, image: Image) -> Poses:
        """Every person of an image (H, W, 3) uint8 BGR that scores above 0."""
        found = [scaled(self.pipeline, scale).run(image) for scale in self.scales]
        merged = found[0] if len(found) == 1 else merge_scales(found, self.spec.skeleton.sigma_array)
        return self._poses(merged, image)

    def detect_initial(self, image: Image) -> Poses:
        """Every person as `detect` finds it, before the adaptation. Right after `detect` the trunk does not run again.

        Raises ValueError for a model that runs at several scales, whose poses are merged after the adaptation.
        """
        self._require_one_scale()
        pipeline = scaled(self.pipeline, self.scales[0])
        return self._poses(replace(pipeline, spec=_without_adaptation(pipeline.spec)).run(image), image)

    def net_scale(self, image: Image) -> float:
        """Net px per px of an image. Raises ValueError for a model that runs at several scales."""
        self._require_one_scale()
        spec = scaled(self.pipeline, self.scales[0]).spec
        return make_letterbox((image.shape[0], image.shape[1]), spec.input, spec.frame).scale

    def _require_one_scale(self) -> None:
        if len(self.scales) != 1:
            raise ValueError(f"initial poses are those of one scale, and {self.name} runs at {len(self.scales)}")

    def _poses(self, found: Estimate, image: Image) -> Poses:
        return Poses(
            keypoints=found.keypoints,
            keypoint_scores=found.keypoint_scores,
            scores=found.scores,
            image_size=(image.shape[0], image.shape[1]),
            skeleton=self.spec.skeleton,
            model=self.name,
            timing=found.timing,
        )


@contextlib.contextmanager
def open_model(
    path: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    flip_test: bool | None = None,
    adaptation: Level | None = None,
    pose_nets: PoseNets | None = None,
    scales: Sequence[float] = (1.0,),
) -> Iterator[EvaluatedModel]:
    """Opens a checkpoint (`.safetensors`, run by torch) or a variant of a bundle; what is None is the model's own.

    What is no file may be the name of a model that ships. Nothing falls back to another device than the one that is
    chosen first. With several `scales`, poses of all input sizes are merged. Raises ValueError for a runtime,
    precision, adaptation level, network or scale that the file cannot be run with, and the errors of `load_model`,
    `find_bundle`, `select_variant` and `open_pipeline`.
    """
    if Path(path).suffix == ".safetensors":
        model = _open_checkpoint(path, runtime, device, precision)
    else:
        model = _open_variant(path, runtime, device, precision)
    try:
        pipeline = _with_settings(model.pipeline, path, flip_test, adaptation)
        if pose_nets is not None:
            pipeline = replace(pipeline, spec=_with_pose_nets(pipeline.spec, pose_nets, path))
        for scale in scales:
            scaled(pipeline, scale)  # before the first image: whether it can be run so
        yield replace(model, pipeline=pipeline, scales=tuple(scales))
    finally:
        model.pipeline.close()


def _open_checkpoint(path: str | os.PathLike[str], runtime: str, device: str, precision: str) -> EvaluatedModel:
    if runtime not in ("auto", "torch") or precision not in ("auto", "fp32"):
        raise ValueError(
            f"{path} is a checkpoint, which torch runs in fp32; convert it to measure it with "
            f"runtime {runtime} and precision {precision}"
        )
    model, place = load_model(path), str(torch_device(device))
    return EvaluatedModel(model.spec.name, FLOAT_VARIANT, torch_pipeline(model, device=place), "torch", place, "fp32")


def _open_variant(path: str | os.PathLike[str], runtime: str, device: str, precision: str) -> EvaluatedModel:
    bundle = open_bundle(path if os.path.exists(path) else find_bundle(os.fspath(path)))
    chosen = select_variant(bundle.manifest, runtime, device, precision)[0]
    pipeline = open_pipeline(bundle, chosen)
    variant = chosen.variant
    return EvaluatedModel(bundle.manifest.id, variant.name, pipeline, chosen.runtime, chosen.device, variant.precision)


def _with_settings(
    pipeline: Pipeline, path: str | os.PathLike[str], flip_test: bool | None, level: Level | None
) -> Pipeline:
    spec = pipeline.spec
    if flip_test is not None:
        spec = spec.model_copy(update={"decode": spec.decode.model_copy(update={"flip_test": flip_test})})
    if level is not None and spec.method != "logocap":
        raise ValueError(f"{path} has no adaptation: it is a model of {spec.method}, whose switch is the pose networks")
    if level is not None:
        spec = _at_level(spec, level)
    if method_of(spec).needs_adapt(spec) and pipeline.adapt is None and not isinstance(pipeline, FusedPipeline):
        raise ValueError(f"{path} has no adaptation to switch to {level!r}")
    return replace(pipeline, spec=spec, trunk=RememberingRuntime(pipeline.trunk))


def _at_level(spec: ModelSpec, level: Level) -> ModelSpec:
    return spec.model_copy(update={"adaptation": spec.adaptation.model_copy(update={"level": level})})


def _with_pose_nets(spec: ModelSpec, last: PoseNets, path: str | os.PathLike[str]) -> ModelSpec:
    """The specification with the networks up to the `last`; raises ValueError for any that the model does not have."""
    number = get_args(PoseNets).index(last)
    used = {"confidence": number >= 1, "similarity": number >= 2, "refinement": number >= 3}
    if spec.method != "dac":
        raise ValueError(f"{path} has no pose networks: it is a model of {spec.method}, whose switch is the adaptation")
    if missing := [name for name, wanted in used.items() if wanted and not getattr(spec.pose_nets, name)]:
        raise ValueError(f"{path} has no pose network for {' and '.join(missing)} to be run with {last!r}")
    return spec.model_copy(update={"pose_nets": spec.pose_nets.model_copy(update=used)})


def _without_adaptation(spec: ModelSpec) -> ModelSpec:
    return _at_level(spec, "none") if spec.method == "logocap" else _with_pose_nets(spec, "none", spec.name)
