"""Frames through both graphs of a model and all that lies around them, with the time of each stage."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import Bundle
from posesdk.decode import ImageMaps, InitialPoses, average_flip, decode_center_offset
from posesdk.graphs import check_fused, check_graphs
from posesdk.methods import Persons, method_of, trunk_outputs
from posesdk.poses import Poses
from posesdk.preprocess import Letterbox, make_letterbox
from posesdk.spec import DecodeSpec, InputSpec, ModelSpec
from posesdk.stopwatch import STAGES, Stopwatch
from posesdk.variants import Candidate
from posesdk_runtimes.base import Runtime, Tensor, share
from posesdk_runtimes.errors import RuntimeFault
from posesdk_runtimes.registry import open_runtime

__all__ = ["STAGES", "Estimate", "Pipeline", "open_pipeline", "require_numbers", "settled"]

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

    @property
    def takes_batches(self) -> bool:
        """Whether the trunk takes several images at once; one with a fixed batch of 1 runs them one by one."""
        return self.trunk.inputs[0].shape[0] != 1

    def run(self, image: NDArray[np.uint8], floor: float = 0.0) -> Estimate:
        """The poses in an image (H, W, 3) uint8 BGR; of those that score below `floor`, some may be left out.

        Candidates that cannot reach `floor` are not adapted: they cost time, and the poses above it stay the same. DAC
        looks at every candidate: what its networks will say of one is not known before. Raises RuntimeFault when a
        backend fails or gives no numbers.
        """
        return self.run_batch([image], floor)[0]

    def run_batch(self, images: Sequence[NDArray[np.uint8]], floor: float = 0.0) -> list[Estimate]:
        """As `run`, for each of several images: one run of the trunk for those of one net size, one for all persons.

        The times of an image are its share: of a run of the trunk that of one image, of the adaptation that of its
        persons; all else is its own. Together they are the time of the call.
        """
        watch = Stopwatch(len(images))
        letterboxes, nets = [], []
        for index, image in enumerate(images):
            letterboxes.append(make_letterbox((image.shape[0], image.shape[1]), self.spec.input, self.spec.frame))
            nets.append(letterboxes[index].warp(image))
            watch.lap("preprocess", index)
        estimates = []
        for index, persons in enumerate(self._find(nets, floor, watch)):
            chosen = self._select(persons, letterboxes[index])
            watch.lap("postprocess", index)
            estimates.append(Estimate(*chosen, watch.laps[index]))
        return estimates

    def candidates(self, image: NDArray[np.uint8]) -> tuple[Letterbox, InitialPoses, dict[str, Tensor]]:
        """The initial poses in an image (H, W, 3) uint8 BGR, in net px, and what the second graph says of each.

        They are what the method is given to make persons of; the letterbox brings them into the image.
        """
        watch = Stopwatch(1)
        letterbox = make_letterbox((image.shape[0], image.shape[1]), self.spec.input, self.spec.frame)
        initial, maps = self._decode([letterbox.warp(image)], 0.0, watch)
        return letterbox, initial[0], self._run_adapt(initial, maps, watch)[0]

    def adjusted(self, decode: DecodeSpec) -> "Pipeline":
        """The same graphs with other decode settings."""
        return replace(self, spec=self.spec.model_copy(update={"decode": decode}))

    def share(self, runs: int) -> "Pipeline":
        """The same graphs for so many frames at a time, each run with its part of the threads."""
        return replace(
            self, trunk=share(self.trunk, runs), adapt=None if self.adapt is None else share(self.adapt, runs)
        )

    def close(self) -> None:
        """Frees both graphs."""
        self.trunk.close()
        if self.adapt is not None:
            self.adapt.close()

    def _find(self, nets: Sequence[NDArray[np.uint8]], floor: float, watch: Stopwatch) -> list[Persons]:
        """The persons, in net px, for each net input (H, W, 3) uint8 RGB."""
        initial, maps = self._decode(nets, floor, watch)
        found = []
        for index, outputs in enumerate(self._run_adapt(initial, maps, watch)):
            found.append(method_of(self.spec).finish(initial[index], maps[index], outputs, self.spec))
            watch.lap("refine", index)
        return found

    def _decode(
        self, nets: Sequence[NDArray[np.uint8]], floor: float, watch: Stopwatch
    ) -> tuple[list[InitialPoses], list[ImageMaps]]:
        """The candidates that may reach `floor`, and the maps, of each net input."""
        initial, maps = [], []
        for index, outputs in enumerate(self._run_trunk(nets, watch)):
            maps.append(self._maps_of_image(outputs))
            ceiling = method_of(self.spec).ceiling(maps[index].heatmaps, self.spec)
            found = decode_center_offset(maps[index].heatmaps, maps[index].offsets, self.spec)
            initial.append(_that_reach(floor, found, ceiling))
            watch.lap("decode", index)
        return initial, maps

    def _run_trunk(self, nets: Sequence[NDArray[np.uint8]], watch: Stopwatch) -> list[dict[str, Tensor]]:
        """The maps of each net input, (1, ...), or (2, ...) with those of its mirror image."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, net in enumerate(nets):
            groups.setdefault(net.shape, []).append(index)
        maps: dict[int, dict[str, Tensor]] = {}
        for group in groups.values():
            alone = len(group) == 1
            images = nets[group[0]][None] if alone else np.stack([nets[index] for index in group])  # (B, H, W, 3)
            if self.spec.decode.flip_test:
                images = np.concatenate([images, images[:, :, ::-1]])
            outputs = _run_batch(self.trunk, "image", np.ascontiguousarray(images))
            for name in trunk_outputs(self.spec):
                require_numbers(outputs[name], f"{name} of the trunk")
            for row, index in enumerate(group):
                maps[index] = {name: values[row :: len(group)] for name, values in outputs.items()}
            watch.lap("trunk", *group)
        return [maps[index] for index in range(len(nets))]

    def _maps_of_image(self, outputs: dict[str, Tensor]) -> ImageMaps:
        heatmaps, offsets = outputs["heatmaps"], outputs["offsets"]
        own = {name: values[0] for name, values in outputs.items()}
        if self.spec.decode.flip_test:
            return ImageMaps(*average_flip(heatmaps, offsets, self.spec.skeleton), own)
        return ImageMaps(heatmaps[0], offsets[0], own)

    def _run_adapt(
        self, initial: Sequence[InitialPoses], maps: Sequence[ImageMaps], watch: Stopwatch
    ) -> list[dict[str, Tensor]]:
        """What the second graph says of the candidates of each image; nothing where nobody is or it is not needed."""
        method = method_of(self.spec)
        owners = [index for index, poses in enumerate(initial) for _ in range(len(poses))]
        if self.adapt is None or not owners or not method.needs_adapt(self.spec):
            return [{} for _ in initial]
        contexts = []
        for index in dict.fromkeys(owners):
            contexts.append(method.context(initial[index], maps[index], self.spec))
            watch.lap("context", index)
        outputs = _run_batch(self.adapt, "context", contexts[0] if len(contexts) == 1 else np.concatenate(contexts))
        ends = np.cumsum([len(poses) for poses in initial])[:-1]
        parts: list[dict[str, Tensor]] = [{} for _ in initial]
        for name in method.adapt_outputs(self.spec):
            require_numbers(outputs[name], f"{name} of the adapt graph")
            for part, values in zip(parts, np.split(outputs[name], ends), strict=True):
                part[name] = values
        watch.lap("adapt", *owners)
        return parts

    def _select(self, persons: Persons, letterbox: Letterbox) -> Persons:
        """Those that score above 0 and are not found twice, in pixels of the image."""
        keypoints, keypoint_scores, scores = persons
        found = scores > 0
        keypoints, keypoint_scores, scores = letterbox.to_image(keypoints[found]), keypoint_scores[found], scores[found]
        if len(scores):
            kept = method_of(self.spec).select(keypoints, scores, self.spec)
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


def _that_reach(floor: float, initial: InitialPoses, ceiling: float) -> InitialPoses:
    """The candidates whose score, at most `ceiling` times that of the center, may be `floor` or more.

    Candidates stand in descending order, and selection goes through them in that order: the last ones change nothing
    for the first.
    """
    return initial.first(int(np.count_nonzero(initial.scores * (ceiling * ROUNDING) >= floor)))


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
