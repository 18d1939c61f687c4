"""The float model and a variant of it on the same pictures: poses, accuracy and speed of both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.coco_accuracy import CocoEvaluation, KeypointAccuracy, LabelledPersons
from posesdk.compare import Deviation, Deviations, compare_poses
from posesdk.pipeline import Estimate, Pipeline
from posesdk.spec import InputSpec, ModelSpec
from posesdk.speed import Speed, measure_speed

__all__ = ["Gate", "OnPicture", "Pictures", "Reference", "Verification", "measure_pipeline"]

Pictures = Iterable[tuple[str, NDArray[np.uint8]]]
"""Names and images (H, W, 3) uint8 BGR; they are gone through several times, and are the same each time."""
OnPicture = Callable[[int], None]
"""Told how many pictures are done."""

LOWEST_SCORE = 0.01
"""Whom an evaluation wants to see, too; models with published weights have lower scores, and all are taken."""
TIMED = 8
"""Pictures that give a median which does not hang on the number of people in one of them."""
LEAST_OKS = 0.9
"""Mean OKS with the float poses that a variant needs without labels."""
MOST_LOST = 0.1
"""Part of the people that scores may carry over the threshold in one direction; int8 is measured at 0 to 0.03."""
POINTS = 100
"""AP points in an AP of 1."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A variant against the float model on the same pictures, at the variant's input size.

    `accuracy` and `float_accuracy` are None without labels, the speeds where none was measured. `deviations` knows the
    worst pictures; `estimates` stand in the order of the pictures.
    """

    deviation: Deviation
    accuracy: KeypointAccuracy | None
    float_accuracy: KeypointAccuracy | None
    speed: Speed | None
    float_speed: Speed | None
    deviations: Deviations = field(repr=False, compare=False)
    estimates: tuple[Estimate, ...] = field(repr=False, compare=False)

    @property
    def ap_drop(self) -> float | None:
        """AP points (hundredths) that the variant is below the float model; None without labelled persons."""
        if self.accuracy is None or self.float_accuracy is None or "AP" not in self.float_accuracy.stats:
            return None
        return POINTS * (self.float_accuracy.stats["AP"] - self.accuracy.stats["AP"])

    @property
    def is_empty(self) -> bool:
        """Whether the float model finds nobody, so that there is nothing to compare."""
        if self.ap_drop is not None and self.float_accuracy is not None:
            return not self.float_accuracy.stats["AP"]
        return not self.deviation.people

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without `deviations` and `estimates`; what was not measured is None."""
        return {
            "deviation": self.deviation.to_dict(),
            "ap_drop": self.ap_drop,
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
            "float_accuracy": None if self.float_accuracy is None else self.float_accuracy.to_dict(),
            "ms": _milliseconds(self.speed),
            "float_ms": _milliseconds(self.float_speed),
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """What a variant may lose: `max_ap_drop` AP points; without labels its mean OKS has to be `min_oks`.

    A `min_oks` that is given holds with labels, too. `max_lost` is for both: AP does not see that all scores sink, by
    which a detector loses people at its threshold.
    """

    max_ap_drop: float = 1.0
    min_oks: float | None = None
    max_lost: float = MOST_LOST

    def fault(self, found: Verification) -> str | None:
        """What the variant misses, None where it passes."""
        drop, alike = found.ap_drop, found.deviation.mean_oks
        if drop is not None and not drop <= self.max_ap_drop:
            return f"AP drops by {drop:.2f} points, {self.max_ap_drop:g} are allowed"
        least = self.least_oks(labelled=drop is not None)
        if least is not None and not alike >= least:
            return f"mean OKS with the float poses is {alike:.3f}, {least:g} is needed"
        return self._fault_of_scores(found.deviation)

    def _fault_of_scores(self, found: Deviation) -> str | None:
        lost, people = found.fallen - found.risen, found.people
        if abs(lost) <= max(1.0, self.max_lost * people):
            return None
        change = "fewer" if lost > 0 else "more"
        return (
            f"scores are others: {abs(lost)} {change} people reach the threshold than the float model's {people}, "
            f"{max(1, int(self.max_lost * people))} are allowed"
        )

    def least_oks(self, *, labelled: bool) -> float | None:
        """The mean OKS that is needed; None where the AP alone decides."""
        return LEAST_OKS if self.min_oks is None and not labelled else self.min_oks


class Reference:
    """The float model on some pictures; what it finds is kept, so that it runs once for each input size."""

    def __init__(self, pipeline: Pipeline, pictures: Pictures, labels: Sequence[LabelledPersons] | None = None) -> None:
        """`labels`: one entry for each picture, in their order, which is that of their ids."""
        self.pictures, self.labels = pictures, labels
        self._pipeline = pipeline
        self._names: list[str] = []
        self._kept: dict[InputSpec, tuple[list[Estimate], KeypointAccuracy | None]] = {}

    def pipeline(self, spec: ModelSpec) -> Pipeline:
        """The float model at the input size of a variant's `spec`; at its own where its graph has a fixed one."""
        shape = self._pipeline.trunk.inputs[0].shape  # (1, H, W, 3)
        if None not in shape[1:3]:
            return self._pipeline
        return replace(self._pipeline, spec=self._pipeline.spec.model_copy(update={"input": spec.input}))

    def found(
        self, spec: ModelSpec, on_picture: OnPicture | None = None
    ) -> tuple[list[Estimate], KeypointAccuracy | None]:
        """What it finds at the input size of `spec`, and how good that is where there are labels."""
        pipeline = self.pipeline(spec)
        if pipeline.spec.input not in self._kept:
            self._names = []
            estimates = measure_pipeline(pipeline, self._noted(), on_picture)
            self._kept[pipeline.spec.input] = estimates, self.accuracy(estimates)
        return self._kept[pipeline.spec.input]

    def accuracy(self, estimates: Sequence[Estimate]) -> KeypointAccuracy | None:
        """COCO's figures of estimates of all pictures; None without labels."""
        if self.labels is None:
            return None
        lowest = _floor(self._pipeline.spec)
        evaluation = CocoEvaluation(self._pipeline.spec.skeleton)
        for labels, estimate in zip(self.labels, estimates, strict=True):
            kept = estimate.scores >= np.float32(lowest)
            evaluation.add(labels, estimate.keypoints[kept], estimate.scores[kept])
        return evaluation.summary()

    def compare(self, spec: ModelSpec, estimates: Sequence[Estimate]) -> Deviations:
        """Estimates of a variant, whose `spec` gives the input size, against those of the float model."""
        deviations = Deviations(spec.skeleton)
        wanted_estimates, _ = self.found(spec)
        for name, wanted, found in zip(self._names, wanted_estimates, estimates, strict=True):
            threshold = spec.decode.score_threshold
            deviations.add(name, compare_poses(wanted, found, threshold=threshold, sigmas=spec.skeleton.sigmas))
        return deviations

    def _noted(self) -> Pictures:
        """The pictures; their names are kept, since it takes reading a picture to learn its name."""
        for name, image in self.pictures:
            self._names.append(name)
            yield name, image

    def verify(self, pipeline: Pipeline, *, timed: int = TIMED, on_picture: OnPicture | None = None) -> Verification:
        """A variant's pipeline on all pictures, and both on the first `timed` ones in turn for their speed.

        `on_picture` goes through the pictures once more where the float model has to run first. Raises what
        `Pipeline.run` and the pictures raise.
        """
        _, float_accuracy = self.found(pipeline.spec, on_picture)
        estimates = measure_pipeline(pipeline, self.pictures, on_picture)
        deviations = self.compare(pipeline.spec, estimates)
        speed = float_speed = None
        if timed:
            images = [image for _, image in islice(self.pictures, timed)]
            float_speed, speed = measure_speed((self.pipeline(pipeline.spec), pipeline), images)
        return Verification(
            deviations.summary(),
            self.accuracy(estimates),
            float_accuracy,
            speed,
            float_speed,
            deviations,
            tuple(estimates),
        )


def measure_pipeline(pipeline: Pipeline, pictures: Pictures, on_picture: OnPicture | None = None) -> list[Estimate]:
    """What a pipeline finds in each picture, down to the scores that an evaluation wants. Raises RuntimeFault."""
    floor = _floor(pipeline.spec)
    estimates = []
    for done, (_, image) in enumerate(pictures, start=1):
        estimates.append(pipeline.run(image, floor))
        if on_picture is not None:
            on_picture(done)
    return estimates


def _floor(spec: ModelSpec) -> float:
    return 0.0 if spec.frame == "published" else LOWEST_SCORE


def _milliseconds(speed: Speed | None) -> dict[str, float] | None:
    return None if speed is None else asdict(speed)
