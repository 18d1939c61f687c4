"""Every variant of a bundle on every backend at hand, against the bundle's own float graphs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

from posesdk.bundle import Bundle
from posesdk.labelled_pictures import PictureFiles
from posesdk.manifest import Manifest
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.variants import Candidate
from posesdk.verify import Gate, OnPicture, Reference, Verification
from posesdk_runtimes.errors import BundleError, EnvironmentFault, MissingDependencyError, RuntimeFault
from posesdk_runtimes.registry import available_runtimes

__all__ = ["Checked", "Counting", "float_candidate", "verify_bundle"]

FLOAT_RUNTIMES = ("onnxruntime", "openvino")
"""What may run the float graphs, the preferred one first."""

Counting = Callable[[str, int], AbstractContextManager[OnPicture]]
"""Gives for a title and a number of pictures what to call with the number of those that are done."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One variant on one backend and device: what was found, and its `fault` where it misses the gate.

    Nothing was `found` where it was `skipped`, which says why it cannot run here, or where its backend failed, which is
    a fault.
    """

    candidate: Candidate
    found: Verification | None = None
    fault: str | None = None
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        used = self.candidate
        place = {"variant": used.variant.name, "precision": used.variant.precision, "runtime": used.runtime}
        place |= {"device": used.device}
        if self.skipped:
            return place | {"skipped": self.skipped}
        judged = place | {"passed": self.fault is None, "fault": self.fault}
        return judged if self.found is None else judged | self.found.to_dict()


def float_candidate(manifest: Manifest) -> Candidate:
    """How the float32 ONNX graphs of a bundle are run here, as what variants are compared with: on the CPU.

    Raises BundleError where the bundle has none, MissingDependencyError where nothing installed runs them.
    """
    graphs = [
        variant for variant in manifest.variants if variant.precision == "fp32" and variant.trunk.endswith(".onnx")
    ]
    split = [variant for variant in graphs if variant.graphs == "split"]
    if not split:
        raise BundleError(f"bundle {manifest.id} holds no float32 ONNX graphs to compare with; convert it again")
    installed = {info.name for info in available_runtimes() if info.version is not None}
    for runtime in FLOAT_RUNTIMES:
        if runtime in installed:
            return Candidate(split[-1], runtime, "cpu")
    raise MissingDependencyError(
        f"bundle {manifest.id}: its float graphs, which variants are compared with, need ONNX Runtime or OpenVINO; "
        "run: pip install onnxruntime"
    )


def verify_bundle(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    pictures: PictureFiles,
    gate: Gate,
    *,
    counting: Counting,
    threads: int | None = None,
) -> Iterator[Checked]:
    """Each candidate as soon as it is done; those that this machine cannot run are `skipped`.

    Raises SourceError for a picture that cannot be read, RuntimeFault when the float model fails, and as
    `float_candidate`.
    """
    float_pipeline = open_pipeline(bundle, float_candidate(bundle.manifest), threads=threads)
    reference = Reference(float_pipeline, pictures, pictures.labels)
    with closing(float_pipeline):
        for candidate in candidates:
            try:
                pipeline = open_pipeline(bundle, candidate, threads=threads)
            except EnvironmentFault as error:
                yield Checked(candidate, skipped=str(error))
                continue
            with closing(pipeline):
                with counting("float model", len(pictures)) as on_picture:
                    reference.found(pipeline.spec, on_picture)
                with counting(f"{candidate.variant.name} with {candidate.runtime}", len(pictures)) as on_picture:
                    yield _check(candidate, pipeline, reference, gate, on_picture)


def _check(
    candidate: Candidate, pipeline: Pipeline, reference: Reference, gate: Gate, on_picture: OnPicture
) -> Checked:
    try:
        found = reference.verify(pipeline, on_picture=on_picture)
    except RuntimeFault as error:
        return Checked(candidate, fault=str(error))
    return Checked(candidate, found, gate.fault(found))
