"""The parity gate: every variant of a bundle, on every backend at hand, against the torch model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.fused import FusedPipeline
from posesdk.manifest import Variant
from posesdk.pipeline import Estimate, Pipeline, settled
from posesdk.spec import ModelSpec
from posesdk_converters.onnx import relative_error
from posesdk_converters.verification.noise import add_noise
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.errors import GateError
from posesdk_runtimes.registry import available_runtimes, open_runtime
from posesdk_training.evaluation.remembering import RememberingRuntime
from posesdk_training.models.build import PoseModel
from posesdk_training.torch_runtime import torch_pipeline

__all__ = ["Parity", "Reference", "open_pipeline", "pose_distances", "random_images", "verify_variants"]

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

TOLERANCE = 0.05
"""Pixels of the image."""
FRACTION = 0.999
"""Share of the keypoints that has to be within TOLERANCE."""
MAP_TOLERANCE = 1e-4
"""Largest `relative_error` of the maps of a float32 trunk."""
RANDOM_IMAGES = 2
NOISE = 5e-6
"""Of the largest magnitude; measured between backends: 1e-7 to 4e-6."""
NOISY_RUNS = 8
"""Rounding is imitated that often; a keypoint that it moves in any of them is undecided. In two runs, one of four
keypoints between two equal responses stays in its place."""


@dataclass(frozen=True)
class Parity:
    """How one variant on one backend compares with torch; distances in pixels of the image.

    `keypoints` is how many were compared; those of a pose that the variant does not find count as far away.
    `undecided` are left out: their two best responses are so equal that rounding decides between them.
    """

    variant: str
    runtime: str
    images: int
    poses: int
    keypoints: int
    undecided: int
    within: float
    median_px: float
    max_px: float
    max_score: float
    max_map: float

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


class Reference:
    """What the torch model finds in some images, and which of its keypoints rounding alone could move.

    `spec` replaces the model's own: another input size, another number of candidates.
    """

    def __init__(self, model: PoseModel, images: Sequence[Image], *, spec: ModelSpec | None = None) -> None:
        self.images = tuple(images)
        used = spec or model.spec
        # Every pose is compared, also those that the suppression would drop.
        self.spec = used.model_copy(update={"decode": used.decode.model_copy(update={"nms_distance": 0.0})})
        self.pipeline = torch_pipeline(model, self.spec)
        trunk = RememberingRuntime(self.pipeline.trunk)
        recorded = replace(self.pipeline, trunk=trunk)
        noisy = [add_noise(recorded, NOISE, seed) for seed in range(NOISY_RUNS)]
        self.estimates: list[Estimate] = []
        self._maps: list[Mapping[str, Tensor]] = []
        self._decided: list[NDArray[np.bool_]] = []
        for image in self.images:
            estimate = recorded.run(image)
            shifts = [pose_distances(pipeline.run(image), estimate)[0] for pipeline in noisy]
            self.estimates.append(estimate)
            self._maps.append(trunk.latest)
            self._decided.append(np.max(shifts, axis=0) <= TOLERANCE)

    def compare(self, pipeline: Pipeline, variant: str, runtime: str) -> Parity:
        """The same images through another pipeline; a fused one does not give its maps."""
        trunk = RememberingRuntime(pipeline.trunk)
        recorded = pipeline if isinstance(pipeline, FusedPipeline) else replace(pipeline, trunk=trunk)
        pairs, errors = [], [0.0]
        for image, wanted, maps in zip(self.images, self.estimates, self._maps, strict=True):
            pairs.append(pose_distances(recorded.run(image), wanted))
            errors += [relative_error(found, maps[name][-len(found) :]) for name, found in trunk.latest.items()]
        decided = np.concatenate(self._decided)
        distances, scores = (np.concatenate(values)[decided] for values in zip(*pairs, strict=True))
        near, found = distances <= TOLERANCE, np.isfinite(distances)
        return Parity(
            variant=variant,
            runtime=runtime,
            images=len(self.images),
            poses=len(decided),
            keypoints=len(distances),
            undecided=int((~decided).sum()),
            within=float(near.mean()) if len(near) else 1.0,
            median_px=float(np.median(distances[found])) if found.any() else 0.0,
            max_px=float(distances[found].max(initial=0)),
            max_score=float(scores[near].max(initial=0)),
            max_map=max(errors),
        )


def verify_variants(model: PoseModel, folder: Path, variants: Sequence[Variant], golden: Image) -> tuple[Parity, ...]:
    """Compares every variant in `folder` with torch, on every installed backend that it names.

    The images are `golden` (H, W, 3) uint8 BGR and random ones, at the variant's input size. Raises GateError where a
    variant is not equal.
    """
    images = [golden, *random_images(model.spec, RANDOM_IMAGES)]
    references: dict[tuple[int, int] | None, Reference] = {}
    installed = {info.name for info in available_runtimes() if info.version}
    results = []
    for variant in variants:
        size = variant.input_size
        if size not in references:
            references[size] = Reference(model, images, spec=settled(model.spec, model.spec.decode, size))
        reference = references[size]
        for runtime in variant.runtime:
            if runtime in installed:
                with open_pipeline(reference.spec, folder, variant, runtime) as pipeline:
                    results.append(_require(reference.compare(pipeline, variant.name, runtime)))
    return tuple(results)


def random_images(spec: ModelSpec, count: int) -> list[Image]:
    """Images (H, W, 3) uint8 of coloured blocks and noise, as large as the model's input."""
    rng = np.random.default_rng(0)
    height, width = spec.input.size or (spec.input.side, spec.input.side * 3 // 4)
    rows, columns = (-(-height // 16), -(-width // 16))
    images = []
    for _ in range(count):
        blocks = rng.integers(0, 256, (rows, columns, 3)).repeat(16, axis=0).repeat(16, axis=1)
        noise = rng.normal(0, 12, (height, width, 3))
        images.append(np.clip(blocks[:height, :width] + noise, 0, 255).astype(np.uint8))
    return images


@contextmanager
def open_pipeline(spec: ModelSpec, folder: Path, variant: Variant, runtime: str) -> Iterator[Pipeline]:
    """The pipeline of a variant's graphs on a backend, on the CPU; closed at the end."""
    precision = variant.runtime_precision
    trunk = open_runtime(folder / variant.trunk, runtime=runtime, precision=precision)
    adapt = None
    try:
        if variant.graphs == "fused":
            yield FusedPipeline(settled(spec, spec.decode, variant.input_size), trunk, None, spec)
            return
        if variant.adapt is not None:
            adapt = open_runtime(folder / variant.adapt, runtime=runtime, precision=precision)
        yield Pipeline(settled(spec, spec.decode, variant.input_size), trunk, adapt)
    finally:
        trunk.close()
        if adapt is not None:
            adapt.close()


def pose_distances(found: Estimate, wanted: Estimate) -> tuple[Floats, Floats]:
    """Distance in px and difference in score (N, K) of every wanted pose to the found pose nearest to it.

    Both are inf where nothing was found.
    """
    shape = wanted.keypoint_scores.shape
    if not len(found.scores):
        return np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    difference = np.linalg.norm(wanted.keypoints[:, None] - found.keypoints[None], axis=-1)  # (N, M, K)
    nearest = np.median(difference, axis=-1).argmin(axis=1)
    distance = difference[np.arange(len(nearest)), nearest]
    return distance.astype(np.float32), np.abs(wanted.keypoint_scores - found.keypoint_scores[nearest])


def _require(parity: Parity) -> Parity:
    where = f"variant {parity.variant} on {parity.runtime}"
    advice = "the bundle was not written; use the pinned versions of torch and of the backend"
    if not parity.max_map <= MAP_TOLERANCE:
        raise GateError(
            f"{where}: its maps differ from the torch model's by {parity.max_map:.2g}, {MAP_TOLERANCE:g} is allowed; "
            f"{advice}"
        )
    if parity.within < FRACTION:
        raise GateError(
            f"{where}: {parity.within:.2%} of {parity.keypoints} keypoints are within {TOLERANCE} px of the torch "
            f"model, {FRACTION:.1%} are needed, the largest error is {parity.max_px:.3g} px; {advice}"
        )
    return parity
