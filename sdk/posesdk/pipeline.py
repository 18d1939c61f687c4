"""One frame through both graphs of a model and all that lies around them, with the time of each stage."""

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk.adapt import adapt_poses, local_context, uses_attraction
from posesdk.bundle import Bundle
from posesdk.decode import InitialPoses, average_flip, decode_center_offset, suppress_poses
from posesdk.graphs import check_fused, check_graphs
from posesdk.poses import Poses
from posesdk.preprocess import Letterbox, make_letterbox
from posesdk.spec import DecodeSpec, InputSpec, ModelSpec
from posesdk.variants import Candidate
from posesdk_runtimes.base import Runtime, Tensor
from posesdk_runtimes.errors import RuntimeFault
from posesdk_runtimes.registry import open_runtime

__all__ = ["STAGES", "Estimate", "Pipeline", "Stopwatch", "open_pipeline", "require_numbers", "settled"]

STAGES = ("preprocess", "trunk", "decode", "context", "adapt", "refine", "postprocess")
"""What `Estimate.timing` measures, in the order in which it happens."""

ROUNDING = 1.001
"""More than float32 sums can add to a score."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Every pose of a frame that scores above 0, in the order of selection.

    `keypoints` (N, K, 2) in pixels of the image, `keypoint_scores` (N, K), `scores` (N,), `timing` in ms per stage.
    """

    keypoints: FloatArray
    keypoint_scores: FloatArray
    scores: FloatArray
    timing: dict[str, float]

    def to_poses(self, spec: ModelSpec, image_size: tuple[int, int]) -> Poses:
        """These poses in an image of that (height, width), without the times, which differ from run to run."""
        return Poses(
            keypoints=self.keypoints,
            keypoint_scores=self.keypoint_scores,
            scores=self.scores,
            image_size=image_size,
            skeleton=spec.skeleton,
            model=spec.name,
            keypoint_threshold=spec.decode.keypoint_threshold,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """A model that is ready to run; keeps nothing between frames, so several threads may share it."""

    spec: ModelSpec
    trunk: Runtime
    adapt: Runtime | None

    def run(self, image: NDArray[np.uint8], floor: float = 0.0) -> Estimate:
        """The poses in an image (H, W, 3) uint8 BGR; of those that score below `floor`, some may be left out.

        Candidates that cannot reach `floor` are not adapted: they cost time, and the poses above it stay the same.
        Raises RuntimeFault when a backend fails or gives no numbers.
        """
        watch = Stopwatch()
        letterbox = make_letterbox((image.shape[0], image.shape[1]), self.spec.input, self.spec.frame)
        net = letterbox.warp(image)
        watch.lap("preprocess")
        maps = self._run_trunk(net)
        watch.lap("trunk")
        heatmaps, offsets = self._maps_of_image(maps)
        initial = _that_reach(floor, decode_center_offset(heatmaps, offsets, self.spec), heatmaps, self.spec)
        watch.lap("decode")
        attraction = self._attraction(initial, maps["embedding"][0], watch)
        keypoints, keypoint_scores = adapt_poses(initial, heatmaps, attraction, self.spec)
        watch.lap("refine")
        chosen = self._select(keypoints, keypoint_scores, letterbox)
        watch.lap("postprocess")
        return Estimate(*chosen, watch.laps)

    def close(self) -> None:
        """Frees both graphs."""
        self.trunk.close()
        if self.adapt is not None:
            self.adapt.close()

    def _run_trunk(self, net: NDArray[np.uint8]) -> dict[str, Tensor]:
        images = net[None]  # (1, H, W, 3)
        if self.spec.decode.flip_test:
            images = np.concatenate([images, images[:, :, ::-1]])
        maps = _run_batch(self.trunk, "image", np.ascontiguousarray(images))
        for name in ("heatmaps", "offsets", "embedding"):
            require_numbers(maps[name], f"{name} of the trunk")
        return maps

    def _maps_of_image(self, maps: dict[str, Tensor]) -> tuple[FloatArray, FloatArray]:
        heatmaps, offsets = maps["heatmaps"], maps["offsets"]
        if self.spec.decode.flip_test:
            return average_flip(heatmaps, offsets, self.spec.skeleton)
        return heatmaps[0], offsets[0]

    def _attraction(self, initial: InitialPoses, embedding: FloatArray, watch: "Stopwatch") -> FloatArray | None:
        if not uses_attraction(self.spec):
            return None
        if self.adapt is None or len(initial) == 0:
            side = self.spec.adaptation.local_size
            return np.zeros((0, self.spec.keypoint_count, side, side), np.float32)
        context = local_context(initial.keypoints, embedding, self.spec)
        watch.lap("context")
        attraction: FloatArray = _run_batch(self.adapt, "context", context)["attraction_maps"]
        require_numbers(attraction, "attraction maps")
        watch.lap("adapt")
        return attraction

    def _select(
        self, keypoints: FloatArray, keypoint_scores: FloatArray, letterbox: Letterbox
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        scores = keypoint_scores.mean(axis=1)
        found = scores > 0
        keypoints, keypoint_scores, scores = letterbox.to_image(keypoints[found]), keypoint_scores[found], scores[found]
        if len(scores):
            kept = suppress_poses(keypoints, scores, self.spec.decode)
            keypoints, keypoint_scores, scores = keypoints[kept], keypoint_scores[kept], scores[kept]
        return keypoints, keypoint_scores, scores


def open_pipeline(
    bundle: Bundle, candidate: Candidate, decode: DecodeSpec | None = None, threads: int | None = None
) -> Pipeline:
    """A bundle as one of its variants on one backend and device, with other decode settings than its own if given.

    Raises BundleError for graphs that are none of such a model, and the errors of `open_runtime`.
    """
    variant = candidate.variant
    spec = settled(bundle.spec, decode or bundle.spec.decode, variant.input_size)

    def load(name: str) -> Runtime:
        engine = None
        if candidate.runtime == "tensorrt":
            from posesdk.engines import engine_options  # what it loads is of use for engines only

            engine = engine_options(bundle, name)
        return open_runtime(
            bundle.local_path(name),
            runtime=candidate.runtime,
            device=candidate.device,
            precision=variant.runtime_precision,
            threads=threads,
            engine=engine,
        )

    with ExitStack() as opened:  # where one graph fails, the memory of the other is free for what is tried next
        trunk = opened.enter_context(closing(load(variant.trunk)))
        adapt = None if variant.adapt is None else opened.enter_context(closing(load(variant.adapt)))
        pipeline: Pipeline
        if variant.graphs == "fused":
            from posesdk.fused import FusedPipeline  # imports this module

            check_fused(trunk, spec, bundle.path)
            pipeline = FusedPipeline(spec, trunk, None, bundle.spec)
        else:
            check_graphs(trunk, adapt, spec, bundle.path)
            pipeline = Pipeline(spec, trunk, adapt)
        opened.pop_all()
        return pipeline


def settled(spec: ModelSpec, decode: DecodeSpec, input_size: tuple[int, int] | None) -> ModelSpec:
    """The model's spec with these decode settings, and with the input size of a graph that has a fixed one."""
    if input_size is None:
        return spec.model_copy(update={"decode": decode})
    fixed = InputSpec(resize="fixed", size=input_size, multiple=spec.stride, mean=spec.input.mean, std=spec.input.std)
    return spec.model_copy(update={"decode": decode, "input": fixed})


def _that_reach(floor: float, initial: InitialPoses, heatmaps: FloatArray, spec: ModelSpec) -> InitialPoses:
    """The candidates whose score, center score times mean response, may be `floor` or more.

    No response is above the maximum of its heatmap, or 1 where it is that of the attraction map. Candidates stand in
    descending order, and suppression goes through them in that order: the last ones change nothing for the first.
    """
    if spec.adaptation.level == "partial":
        ceiling = 1.0
    else:
        ceiling = float(heatmaps[: spec.keypoint_count].max(axis=(1, 2)).clip(0).mean())
    count = int(np.count_nonzero(initial.scores * (ceiling * ROUNDING) >= floor))
    return InitialPoses(initial.keypoints[:count], initial.scores[:count], initial.centers[:count])


def _run_batch(runtime: Runtime, name: str, batch: Tensor) -> dict[str, Tensor]:
    """Every output for the whole batch, one element at a time where the graph has a fixed batch of 1."""
    if runtime.inputs[0].shape[0] != 1 or len(batch) == 1:
        return runtime.run({name: batch})
    parts = [runtime.run({name: batch[index : index + 1]}) for index in range(len(batch))]
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}


def require_numbers(values: Tensor, name: str) -> None:
    """Raises RuntimeFault for values that are not finite; `name` says what they are."""
    if not np.isfinite(values).all():
        raise RuntimeFault(f"the {name} hold values that are not finite; use another precision, runtime or device")


class Stopwatch:
    """Milliseconds from lap to lap."""

    def __init__(self) -> None:
        self.laps = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Adds the time since the lap before to a stage."""
        now = time.perf_counter()
        self.laps[stage] += (now - self._last) * 1e3
        self._last = now
