"""The golden image of a bundle through every backend at hand: does the model do here what it did where it was made?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import Bundle, Golden
from posesdk.compare import compare_poses
from posesdk.manifest import Precision, Variant
from posesdk.pipeline import Estimate, Pipeline, open_pipeline
from posesdk.preprocess import make_letterbox
from posesdk.spec import ModelSpec
from posesdk.variants import Candidate, select_variant
from posesdk_runtimes.errors import BundleError, EnvironmentFault
from posesdk_runtimes.registry import RUNTIMES, available_runtimes

__all__ = ["Check", "Tolerance", "reason_left_out", "run_selftest"]

WITHIN = 0.95
"""Part of the keypoints that has to be in place: where two responses are equal, rounding decides between them."""
ALIKE = 0.8
"""Mean OKS with the expected people where levels are coarse: then every response is another one, and a keypoint that
goes to the next best place is what the gate of the conversion has allowed. Measured: 0.99 to 1.00."""
COARSE: frozenset[Precision] = frozenset({"bf16", "int8"})


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a keypoint (px of the network's input) and a person's score may be off."""

    shift: float
    score: float


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(0.5, 0.005),
    "fp16": Tolerance(2.0, 0.03),
    "bf16": Tolerance(4.0, 0.1),
    "int8": Tolerance(4.0, 0.1),
}
"""Rounding moves a keypoint to a neighbouring pixel at most; quantisation by about one cell (4 px)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One variant on one backend and device.

    `people` expected, `missing` of them not found, `extra` ones found; the largest `shift` of a keypoint in px of the
    network's input, the part of the keypoints `within` tolerance, the mean `oks` of the expected people (0 for one who
    is missing), the largest difference of a person's `score`.
    `skipped` says why it was not run.
    """

    candidate: Candidate
    people: int = 0
    missing: int = 0
    extra: int = 0
    shift: float = 0.0
    within: float = 1.0
    oks: float = 1.0
    score: float = 0.0
    milliseconds: float = 0.0
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether everyone was found, and no one else, in place, with the same score."""
        coarse = self.candidate.variant.precision in COARSE
        in_place = self.oks >= ALIKE if coarse else self.within >= WITHIN
        return self.missing == self.extra == 0 and in_place and self.score <= self.tolerance.score

    @property
    def summary(self) -> str:
        """One line for people."""
        used = self.candidate
        place = f"{used.variant.name} ({used.variant.precision}) with {used.runtime} on {used.device}"
        if self.skipped:
            return f"skipped {place}: {self.skipped}"
        if not self.people and self.passed:
            return f"passed {place}: nobody is expected in the bundle's picture, so this shows only that it runs"
        return (
            f"{'passed' if self.passed else 'FAILED'} {place}: {self.people - self.missing} of {self.people} people, "
            f"{self.extra} extra, largest shift {self.shift:.3f} px ({self.within:.1%} within {self.tolerance.shift}), "
            f"OKS {self.oks:.3f}, "
            f"score off by {self.score:.5f} (allowed {self.tolerance.score}), {self.milliseconds:.0f} ms"
        )

    @property
    def tolerance(self) -> Tolerance:
        """What is allowed at the variant's precision."""
        return TOLERANCES[self.candidate.variant.precision]


def run_selftest(bundle: Bundle, candidates: Sequence[Candidate] | None = None) -> list[Check]:
    """One check for each of the candidates; those that cannot run here are `skipped`.

    None stands for every variant on every installed backend and device, and those that have none are `skipped`.
    Raises BundleError for a bundle without a golden image, EnvironmentFault where nothing can run, RuntimeFault when a
    backend fails.
    """
    golden = bundle.golden()
    if golden is None:
        raise BundleError(f"bundle {bundle.path} has no golden image to test with; convert the checkpoint again")
    chosen = select_variant(bundle.manifest) if candidates is None else candidates
    checks = [_check(bundle, candidate, golden, golden.picture()) for candidate in chosen]
    if candidates is None:
        found = {candidate.variant.name for candidate in chosen}
        checks += [_left_out(variant) for variant in bundle.manifest.variants if variant.name not in found]
    if all(check.skipped for check in checks):
        raise EnvironmentFault(f"bundle {bundle.path} cannot run here: {checks[0].skipped}")
    return checks


def _check(bundle: Bundle, candidate: Candidate, golden: Golden, image: NDArray[np.uint8]) -> Check:
    try:
        pipeline = open_pipeline(bundle, candidate)
    except EnvironmentFault as error:
        return Check(candidate, skipped=str(error))
    golden = bundle.golden(candidate.variant.input_size) or golden
    pipeline.run(image)  # gets the backend ready, so that the time is that of a later frame
    estimate = pipeline.run(image)
    check = _compare(candidate, golden, estimate, pipeline.spec, _scale(pipeline, image))
    pipeline.close()
    return check


def _left_out(variant: Variant) -> Check:
    candidate = Candidate(variant, "/".join(variant.runtime), variant.devices[0])
    return Check(candidate, skipped=reason_left_out(variant))


def reason_left_out(variant: Variant) -> str:
    """Why a variant has no backend or device here, and what to do: somebody may have made the bundle for its sake."""
    installed = {info.name for info in available_runtimes() if info.version}
    missing = [name for name in variant.runtime if name not in installed]
    if len(missing) < len(variant.runtime):
        return f"no {' or '.join(variant.devices)} was found for it here"
    hints = [f"`{RUNTIMES[name].install}`" for name in missing if name in RUNTIMES]
    return f"not installed here; {'install it with ' + ' or '.join(hints) if hints else 'upgrade posesdk'}"


def _scale(pipeline: Pipeline, image: NDArray[np.uint8]) -> float:
    return make_letterbox((image.shape[0], image.shape[1]), pipeline.spec.input, pipeline.spec.frame).scale


def _compare(candidate: Candidate, golden: Golden, estimate: Estimate, spec: ModelSpec, scale: float) -> Check:
    wanted = Estimate(golden.keypoints, golden.keypoint_scores, golden.scores, {})
    compared = compare_poses(wanted, estimate, threshold=0.0, sigmas=spec.skeleton.sigma_array)
    shifts = scale * compared.shifts.ravel()
    allowed = TOLERANCES[candidate.variant.precision]
    sure = spec.decode.score_threshold + allowed.score
    return Check(
        candidate,
        people=len(golden.scores),
        missing=len(compared.missing),
        extra=int((estimate.scores[compared.extra] > sure).sum()),
        shift=float(shifts.max(initial=0.0)),
        within=float(np.mean(shifts <= allowed.shift)) if len(shifts) else 1.0,
        oks=float(compared.similarities.sum() / len(golden.scores)) if len(golden.scores) else 1.0,
        score=float(np.abs(compared.score_changes).max(initial=0.0)),
        milliseconds=sum(estimate.timing.values()),
    )
