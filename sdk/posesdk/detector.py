"""`Detector`: people and their keypoints in images and videos."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.arguments import check_counts, check_names, check_parts
from posesdk.bundle import Bundle, open_bundle
from posesdk.fused import prefer_suitable
from posesdk.images import to_image
from posesdk.pipeline import Estimate, Pipeline, open_pipeline
from posesdk.poses import FrameInfo, Poses
from posesdk.preprocess import make_letterbox
from posesdk.shipped import find_bundle
from posesdk.skeleton import Skeleton
from posesdk.sources import Source
from posesdk.spec import DecodeSpec, ModelSpec
from posesdk.streaming import ResultStream, Streams, frames_at_once
from posesdk.variants import Candidate, select_variant
from posesdk.video import Frame, OnFault
from posesdk_runtimes.errors import EnvironmentFault, RuntimeFault

__all__ = ["Detector", "DetectorInfo"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What a detector uses: the bundle's id and version, one of its variants, and the settings in force."""

    model: str
    version: str
    bundle: str
    variant: str
    runtime: str
    device: str
    precision: str
    skeleton: Skeleton
    score_threshold: float
    keypoint_threshold: float
    max_people: int
    flip_test: bool
    threads: int | None


class Detector:
    """Finds people; immutable, safe to call from several threads at once, and a context manager.

    `model` is the path of a bundle or, as a string, the name of a model that comes with the package, None the default
    model; `posesdk.shipped.find_bundle` says more. A `device` ("cpu", "cuda:0", "gpu", ...), `runtime`
    ("onnxruntime", "openvino", ...), `precision` ("fp32", "fp16", "int8", ...) or `variant` (its name in the bundle)
    that is named is used, or DeviceUnavailableError, MissingDependencyError or ValueError is raised; "auto" may fall
    back, with a warning, and `info` says to what. Thresholds and `flip_test` of None are the model's own. `max_people`
    bounds how many people are found, and how many candidates of each kind of center are refined (of a model of method
    "dac" at least 10), and so the time of a crowded frame. `threads` of None leaves their number to the runtime.
    """

    __slots__ = ("_info", "_pipeline", "_streams")
    _info: DetectorInfo
    _pipeline: Pipeline
    _streams: Streams

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        runtime: str = "auto",
        precision: str = "auto",
        variant: str = "auto",
        score_threshold: float | None = None,
        keypoint_threshold: float | None = None,
        max_people: int = 30,
        threads: int | None = None,
        flip_test: bool | None = None,
    ) -> None:
        check_names(device=device, runtime=runtime, precision=precision, variant=variant)
        check_parts(score_threshold=score_threshold, keypoint_threshold=keypoint_threshold)
        check_counts(max_people=max_people, threads=threads)
        bundle = open_bundle(find_bundle(model))
        candidates = select_variant(bundle.manifest, runtime, device, precision, variant=variant)
        changes = _named(
            score_threshold=score_threshold,
            keypoint_threshold=keypoint_threshold,
            max_people=max_people,
            flip_test=flip_test,
        )
        decode = bundle.spec.decode.model_copy(update=changes)
        candidates = prefer_suitable(candidates, bundle.spec, decode)
        used, pipeline = _open_first(bundle, candidates, decode, threads)
        object.__setattr__(self, "_pipeline", pipeline)
        object.__setattr__(self, "_info", _describe(bundle, used, pipeline.spec, threads))
        object.__setattr__(self, "_streams", Streams())
        _log.info("using %s", self._info)

    def __call__(self, frame: Any) -> Poses:
        """The people in a frame: (H, W, 3) uint8 BGR (grey and BGRA are converted), a PIL image, a picture's path,
        or a `posesdk.video.Frame`.

        Raises SourceError for a file that cannot be read, ValueError or TypeError for what is no image, RuntimeFault
        when the backend fails.
        """
        return self.detect_batch([frame])[0]

    def stream(self, source: Source, on_fault: OnFault | None = None) -> ResultStream[Poses]:
        """The people in every frame of a source, in order; `posesdk.sources.open_source` says what `on_fault` is.

        Each frame has the poses that a call finds in it. Frames are read, and two worked on at a time (one with
        `threads=1`), in threads of the stream while the caller works: at most four frames ahead of the poses that it
        has taken, two of a camera or network stream. Except for those, frames divide the processors as `share` says.
        `posesdk.streaming.ResultStream` says what happens to arrays, errors and a stream that is left. `timing` is that
        of a frame's own stages, on processors that frames share.
        """
        workers = frames_at_once(self._info.threads)
        stream = ResultStream(source, self.share(workers), live_work=self, workers=workers, on_fault=on_fault)
        self._streams.add(stream)
        return stream

    def detect_batch(self, frames: Sequence[Any]) -> list[Poses]:
        """The people in each of several frames, as a call finds them in one; a frame that it refuses fails the batch.

        Frames of one `net_size` go through the model together: meant for accelerators; on a CPU it saves little, and no
        frame has its poses before all have. `timing` is each frame's share of the batch.
        """
        if isinstance(frames, str) or not isinstance(frames, Sequence):
            raise TypeError(f"expected a list of frames, got {type(frames).__name__}; put a single frame into a list")
        threshold = self._info.score_threshold
        return [poses.above(threshold) for poses in self._find(frames, threshold)]

    def detect_all(self, frame: Any) -> Poses:
        """As a call, but with every person that scores above 0: what an evaluation wants."""
        return self._find([frame], 0.0)[0]

    def _find(self, frames: Sequence[Any], floor: float) -> list[Poses]:
        images, infos = [], []
        for frame in frames:
            if isinstance(frame, Frame):
                images.append(frame.image)
                infos.append(frame.info)
            else:
                images.append(to_image(frame))
                infos.append(FrameInfo(os.fspath(frame) if isinstance(frame, str | os.PathLike) else None))
        estimates = self._pipeline.run_batch(images, floor)
        return [self._poses(*found) for found in zip(estimates, images, infos, strict=True)]

    def _poses(self, estimate: Estimate, image: NDArray[np.uint8], info: FrameInfo) -> Poses:
        return Poses(
            keypoints=estimate.keypoints,
            keypoint_scores=estimate.keypoint_scores,
            scores=estimate.scores,
            image_size=(image.shape[0], image.shape[1]),
            skeleton=self._info.skeleton,
            model=self._info.model,
            keypoint_threshold=self._info.keypoint_threshold,
            frame=info,
            timing=estimate.timing,
        )

    def adjusted(
        self,
        *,
        score_threshold: float | None = None,
        keypoint_threshold: float | None = None,
        max_people: int | None = None,
    ) -> "Detector":
        """A detector with other settings on the same loaded graphs, at next to no cost; None leaves one as it is.

        Closing any of them closes the graphs for all. Raises ValueError for a setting out of its range, and for more
        people than a fused graph has places for.
        """
        check_parts(score_threshold=score_threshold, keypoint_threshold=keypoint_threshold)
        check_counts(max_people=max_people)
        changes = _named(score_threshold=score_threshold, keypoint_threshold=keypoint_threshold, max_people=max_people)
        decode = self._pipeline.spec.decode.model_copy(update=changes)
        return self._with(self._pipeline.adjusted(decode), replace(self._info, **changes))

    def share(self, calls: int) -> "Detector":
        """A detector on the same loaded graphs for who calls it from so many threads at once, as a stream does.

        Each call takes its part of the processors, which saves what threads of several calls wait for one another, and
        takes longer where it is alone: with OpenVINO on a CPU, and for frame sizes that come often. Poses are the same.
        Closing either closes both.
        """
        check_counts(calls=calls)
        return self._with(self._pipeline.share(calls), self._info)

    def _with(self, pipeline: Pipeline, info: DetectorInfo) -> "Detector":
        other = object.__new__(Detector)
        object.__setattr__(other, "_pipeline", pipeline)
        object.__setattr__(other, "_info", info)
        object.__setattr__(other, "_streams", self._streams)
        return other

    def net_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the network's input for images of that height and width."""
        spec = self._pipeline.spec
        return make_letterbox(image_size, spec.input, spec.frame).net_size

    @property
    def takes_batches(self) -> bool:
        """Whether frames of a batch go through the graph together: not where its batch size is fixed to 1."""
        return self._pipeline.takes_batches

    @property
    def info(self) -> DetectorInfo:
        """What is used: model, variant, runtime, device, precision, thresholds, skeleton."""
        return self._info

    def close(self) -> None:
        """Frees the model; calls after it raise RuntimeFault, and so do streams that had not come to their end."""
        self._streams.close(RuntimeFault(f"cannot go on with a stream: {self!r} has been closed; open it again"))
        self._pipeline.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Detector does not change: make another one to set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Detector does not change: {name!r} stays")

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Detector cannot be pickled or copied: threads may share it, and each process makes its own")

    def __repr__(self) -> str:
        info = self._info
        return f"Detector({info.model!r}, {info.variant}, {info.runtime} on {info.device})"


def _named(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _open_first(
    bundle: Bundle, candidates: tuple[Candidate, ...], decode: DecodeSpec, threads: int | None
) -> tuple[Candidate, Pipeline]:
    """The first candidate that this machine can run; what it cannot is skipped with a warning.

    Of a runtime on a device that is said once, of the first variant: most often it is the device that is not there.
    """
    missed: dict[tuple[str, str], tuple[Candidate, EnvironmentFault]] = {}
    for candidate in candidates:
        try:
            pipeline = open_pipeline(bundle, candidate, decode, threads)
        except EnvironmentFault as error:
            missed.setdefault((candidate.runtime, candidate.device), (candidate, error))
            continue
        _warn_of(missed.values())
        return candidate, pipeline
    _, fault = missed.pop((candidates[-1].runtime, candidates[-1].device))
    _warn_of(missed.values())
    raise fault


def _warn_of(missed: Iterable[tuple[Candidate, EnvironmentFault]]) -> None:
    for used, error in missed:
        _log.warning("not using %s with %s on %s: %s", used.variant.name, used.runtime, used.device, error)


def _describe(bundle: Bundle, used: Candidate, spec: ModelSpec, threads: int | None) -> DetectorInfo:
    return DetectorInfo(
        model=bundle.manifest.id,
        version=bundle.manifest.version,
        bundle=str(bundle.path),
        variant=used.variant.name,
        runtime=used.runtime,
        device=used.device,
        precision=used.variant.precision,
        skeleton=spec.skeleton,
        score_threshold=spec.decode.score_threshold,
        keypoint_threshold=spec.decode.keypoint_threshold,
        max_people=spec.decode.max_people,
        flip_test=spec.decode.flip_test,
        threads=threads,
    )
