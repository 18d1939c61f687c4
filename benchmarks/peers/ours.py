"""A bundle of posesdk as a Finder, through the public `Detector`, and with people planted behind its trunk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peers.finder import Found, Image
from posesdk.benchmark.planted import plant_people
from posesdk.bundle import Bundle, open_bundle
from posesdk.detector import Detector
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.poses import Poses
from posesdk.shipped import find_bundle
from posesdk.streaming import ResultStream
from posesdk.variants import Candidate, select_variant

__all__ = ["Ours", "Planted", "open_ours"]

NETWORKS = ("trunk", "adapt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True, eq=False)
class Ours:
    """A detector by the title that tables give it, and what else its graphs can be opened with."""

    title: str
    detector: Detector
    bundle: Bundle
    candidate: Candidate
    threads: int

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        found = self.detector.detect_all(image) if everyone else self.detector(image)
        keypoints = np.concatenate([found.keypoints, found.keypoint_scores[..., None]], axis=2)
        return Found(keypoints, found.scores, _stages(dict(found.timing)))

    def stream(self, video: Path) -> ResultStream[Poses]:
        """The people in every frame of a video."""
        return self.detector.stream(video)

    def planted(self, count: int) -> "Planted":
        """The same model, but its trunk answers with so many people."""
        return Planted(plant_people(open_pipeline(self.bundle, self.candidate, threads=self.threads), count))


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A model that finds the people that were planted behind its trunk, whatever is in the picture."""

    pipeline: Pipeline

    def poses(self, image: Image) -> Found:
        """Those that score as much as a detector wants."""
        floor = self.pipeline.spec.decode.score_threshold
        found = self.pipeline.run(image, floor)
        kept = found.scores >= floor
        keypoints = np.concatenate([found.keypoints, found.keypoint_scores[..., None]], axis=2)
        return Found(keypoints[kept], found.scores[kept], _stages(found.timing))


def open_ours(text: str, *, threads: int) -> Ours:
    """A model by name, or a bundle by path; with `:int8` or another precision at its end, that variant of it.

    Raises what `Detector` raises of what is not there.
    """
    name, _, precision = text.rpartition(":")
    if not name or precision not in PRECISIONS:
        name, precision = text, "auto"
    bundle = open_bundle(find_bundle(name))
    candidate = select_variant(bundle.manifest, device="cpu", precision=precision)[0]
    detector = Detector(
        bundle.path,
        runtime=candidate.runtime,
        device=candidate.device,
        variant=candidate.variant.name,
        threads=threads,
    )
    return Ours(f"{bundle.manifest.id} {candidate.variant.precision}", detector, bundle, candidate, threads)


def _stages(timing: dict[str, float]) -> dict[str, float]:
    """The SDK's stages as STAGES: both graphs are the network, and what lies around them is the decoding."""
    network = sum(timing[stage] for stage in NETWORKS)
    rest = sum(timing.values()) - network - timing["preprocess"]
    return {"preprocess": timing["preprocess"], "network": network, "decode": rest}
