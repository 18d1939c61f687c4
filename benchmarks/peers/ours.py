"""A bundle of posesdk as a Finder, through the public `Detector`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from peers.finder import Found, Image
from posesdk.detector import Detector
from posesdk.poses import Poses

__all__ = ["Ours"]

NETWORKS = ("trunk", "adapt")


@dataclass(frozen=True, slots=True)
class Ours:
    """A detector by the title that tables give it."""

    title: str
    detector: Detector

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        return _found(self.detector.detect_all(image) if everyone else self.detector(image))

    def stream(self, frames: Iterable[Image]) -> Iterator[int]:
        """How many people are in each frame."""
        return (len(poses) for poses in self.detector.stream(frames))


def _found(poses: Poses) -> Found:
    keypoints = np.concatenate([poses.keypoints, poses.keypoint_scores[..., None]], axis=2)
    network = sum(poses.timing[stage] for stage in NETWORKS)
    preprocess = poses.timing["preprocess"]
    rest = sum(poses.timing.values()) - network - preprocess
    return Found(keypoints, poses.scores, {"preprocess": preprocess, "network": network, "decode": rest})
