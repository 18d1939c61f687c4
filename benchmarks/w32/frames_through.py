"""Frames through a fused graph that is started and waited for, from pictures to poses."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import suppress_poses
from posesdk.preprocess import make_letterbox
from posesdk.spec import ModelSpec

__all__ = ["FramesThrough", "StartedGraph"]

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


class StartedGraph(Protocol):
    """A fused graph that works on one input at a time while the host does something else."""

    def submit(self, values: Image) -> None:
        """Starts it on an input (1, H, W, 3)."""
        ...

    def collect(self) -> Sequence[Floats]:
        """Waits for the outputs of what was submitted: keypoints, keypoint scores, center scores."""
        ...


class FramesThrough:
    """Pictures (h, w, 3) uint8 BGR of one `picture_size` through a fused graph of a model of that specification."""

    def __init__(self, graph: StartedGraph, spec: ModelSpec, picture_size: tuple[int, int]) -> None:
        self._graph, self._spec = graph, spec
        self._letterbox = make_letterbox(picture_size, spec.input, spec.frame)

    def run(self, frame: Image) -> Floats:
        """The poses (N, K, 2) in pixels of the frame."""
        self._graph.submit(self._prepare(frame))
        return self._poses(self._graph.collect())

    def stream(self, frames: Iterable[Image]) -> Iterator[Floats]:
        """As `run`, for each frame; the host works on the frames before and behind while the graph works."""
        busy = False
        for frame in frames:
            net = self._prepare(frame)
            outputs = self._graph.collect() if busy else None
            self._graph.submit(net)
            busy = True
            if outputs is not None:
                yield self._poses(outputs)
        if busy:
            yield self._poses(self._graph.collect())

    def _prepare(self, frame: Image) -> Image:
        return self._letterbox.warp(frame)[None]

    def _poses(self, outputs: Sequence[Floats]) -> Floats:
        keypoints, keypoint_scores, centers = outputs
        scores = keypoint_scores.mean(axis=1)
        found = (centers > 0) & (scores > 0)
        points: Floats = self._letterbox.to_image(keypoints[found])
        return points[suppress_poses(points, scores[found], self._spec.decode)] if found.any() else points
