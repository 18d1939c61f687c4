"""Frames through a fused graph, which does the whole adaptation, too, for a fixed number of candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk.methods import Persons
from posesdk.pipeline import Pipeline, require_numbers
from posesdk.spec import DecodeSpec, ModelSpec
from posesdk.stopwatch import Stopwatch
from posesdk.variants import Candidate

__all__ = ["FusedPipeline", "prefer_suitable"]


@dataclass(frozen=True, slots=True, eq=False)
class FusedPipeline(Pipeline):
    """A pipeline whose `trunk` is the fused graph; `adapt` is None.

    `exported` is the specification that the graph was made from: flip test, adaptation and center threshold stand in
    the graph. Raises ValueError for a `spec` that wants others, or more candidates than the graph has places for.
    """

    exported: ModelSpec

    def __post_init__(self) -> None:
        """Compares `spec` with what is in the graph."""
        places = self.trunk.outputs[0].shape[0]
        settings = (
            ("the flip test", self.spec.decode.flip_test, self.exported.decode.flip_test),
            ("center threshold", self.spec.decode.center_threshold, self.exported.decode.center_threshold),
            ("adaptation", self.spec.adaptation, self.exported.adaptation),
        )
        for title, wanted, built in settings:
            if wanted != built:
                raise ValueError(
                    f"a fused graph of {self.spec.name} has {title} built in as {built}, not {wanted}; "
                    "leave the setting as it is, or take a variant with two graphs"
                )
        if places is not None and self.spec.decode.max_people > places:
            raise ValueError(
                f"a fused graph of {self.spec.name} refines {places} candidates at most, not max_people "
                f"{self.spec.decode.max_people}; ask for fewer, or take a variant with two graphs"
            )

    def _find(self, nets: Sequence[NDArray[np.uint8]], floor: float, watch: Stopwatch) -> list[Persons]:
        """Every candidate costs the same, so `floor` saves nothing; decoding and adaptation count as `trunk`.

        The graph has places for the candidates of one image, so images go through it one by one.
        """
        poses = []
        for index, net in enumerate(nets):
            outputs = self.trunk.run({"image": net[None]})
            for name, values in outputs.items():
                require_numbers(values, f"{name} of the fused graph")
            found = np.flatnonzero(outputs["center_scores"] > 0)[: self.spec.decode.max_people]
            keypoint_scores = outputs["keypoint_scores"][found]
            poses.append((outputs["keypoints"][found], keypoint_scores, keypoint_scores.mean(axis=1)))
            watch.lap("trunk", index)
        return poses


def prefer_suitable(candidates: Sequence[Candidate], model: ModelSpec, decode: DecodeSpec) -> tuple[Candidate, ...]:
    """The candidates that can be run with these settings of the decoder; all of them where none can.

    Two graphs take any; a fused one has the flip test of `model` and as many places as its `max_people`.
    """
    fits = decode.flip_test == model.decode.flip_test and decode.max_people <= model.decode.max_people
    return tuple(one for one in candidates if fits or one.variant.graphs == "split") or tuple(candidates)
