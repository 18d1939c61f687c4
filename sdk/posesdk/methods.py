"""What is a method's own between the dense maps and the persons of an image, chosen by the model's specification.

Both methods read initial poses off centers (`posesdk.decode`). LOGO-CAP adapts each of them to the maps around it; DAC
lets networks that look at a pose group, choose and refine them.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posesdk.adapt import LocalGlobalAdaptation
from posesdk.decode import ImageMaps, InitialPoses
from posesdk.dual_centers import DualCenters
from posesdk.spec import ModelSpec

__all__ = ["Method", "Persons", "Shapes", "method_of", "trunk_outputs"]

FloatArray = NDArray[np.float32]
Shapes = dict[str, tuple[int | None, ...]]
"""Shape of each tensor by its name; a side of None is any."""
Persons = tuple[FloatArray, FloatArray, FloatArray]
"""Keypoints (N, K, 2), keypoint scores (N, K) and scores (N,) of the persons of an image."""


class Method(Protocol):
    """What is done with the initial poses of an image. Holds nothing: the specification says how it is done."""

    def feature_maps(self, spec: ModelSpec) -> Shapes:
        """What it wants from the trunk besides heatmaps and offsets."""
        ...

    def context_shape(self, spec: ModelSpec) -> tuple[int | None, ...]:
        """Shape of `context`, the one input of the `adapt` graph."""
        ...

    def adapt_outputs(self, spec: ModelSpec) -> Shapes:
        """What it wants from the `adapt` graph."""
        ...

    def needs_adapt(self, spec: ModelSpec) -> bool:
        """Whether it needs the `adapt` graph at all."""
        ...

    def ceiling(self, heatmaps: FloatArray, spec: ModelSpec) -> float:
        """The most that a person's score can be of its center's score; `heatmaps` (K+Q, h, w). Infinite if unknown."""
        ...

    def context(self, initial: InitialPoses, maps: ImageMaps, spec: ModelSpec) -> FloatArray:
        """What the `adapt` graph is to see of each initial pose."""
        ...

    def finish(
        self, initial: InitialPoses, maps: ImageMaps, outputs: Mapping[str, FloatArray], spec: ModelSpec
    ) -> Persons:
        """The persons in net px. `outputs`: those of the `adapt` graph for each initial pose; empty without poses.

        Raises ValueError for outputs that are needed and missing.
        """
        ...

    def select(self, keypoints: FloatArray, scores: FloatArray, spec: ModelSpec) -> NDArray[np.intp]:
        """Which of the persons (N, K, 2), in px of any frame, with scores (N,), stay: at most `max_people`."""
        ...


_METHODS: dict[str, Method] = {"logocap": LocalGlobalAdaptation(), "dac": DualCenters()}


def method_of(spec: ModelSpec) -> Method:
    """The method of a model."""
    return _METHODS[spec.method]


def trunk_outputs(spec: ModelSpec) -> Shapes:
    """Every output that the trunk of a model has to have, in the order in which it is exported."""
    dense: Shapes = {
        "heatmaps": (None, spec.keypoint_count + spec.center_count, None, None),
        "offsets": (None, 2 * spec.keypoint_count * spec.center_count, None, None),
    }
    return dense | method_of(spec).feature_maps(spec)
