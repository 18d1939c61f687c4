"""Every variant of a conversion against the float model, and int8 layers put back to float until the gate is passed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from posesdk.manifest import Precision, Variant
from posesdk.pipeline import Estimate
from posesdk.spec import ModelSpec
from posesdk.verify import Gate, OnPicture, Reference, Verification
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers, Target
from posesdk_converters.verification.fallback import fewest_float_layers
from posesdk_converters.verification.parity import open_pipeline
from posesdk_converters.verification.sensitivity import LayerError, rank_layers
from posesdk_runtimes.errors import EnvironmentFault, RuntimeFault
from posesdk_runtimes.registry import available_runtimes

__all__ = ["Judge", "Judged", "runtime_here"]

SAID_HERE = ("openvino", "onnxruntime", "tflite")
"""Backends that run on the CPU of the machine that converts."""
MOST_FLOAT = 1 / 3
"""Part of the layers that may go back to float: what needs more is no int8 model, and its calibration is to blame."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One variant: by which runtime it was run on the CPU here, what came out, and what it misses of the gate.

    Where it cannot be run here, `verification` is None and `note` says why. `float_estimates` are what the float model
    finds in the pictures at the variant's input size.
    """

    variant: Variant
    runtime: str
    verification: Verification | None = None
    fault: str | None = None
    note: str = ""
    float_estimates: tuple[Estimate, ...] = field(default=(), repr=False)


@dataclass(eq=False)
class Judge:
    """The float model of `reference` as the measure for all variants in `folder`."""

    spec: ModelSpec
    folder: Path
    reference: Reference
    gate: Gate
    step: Callable[[str], None]
    pictures: int
    """How many the reference has."""
    ranking: tuple[LayerError, ...] = field(default=(), init=False)
    """The layers by what int8 costs them; empty as long as no variant missed the gate."""

    def judge(self, variant: Variant) -> Judged:
        """Runs a variant on all pictures."""
        runtime = runtime_here(variant)
        if runtime is None:
            return Judged(variant, variant.runtime[0], note=f"none of {', '.join(variant.runtime)} is installed here")
        title = f"verifying {variant.name} with {runtime}"
        self.step(title)
        try:
            with open_pipeline(self.spec, self.folder, variant, runtime) as pipeline:
                wanted, _ = self.reference.found(pipeline.spec, self._counting("running the float model"))
                verification = self.reference.verify(pipeline, on_picture=self._counting(title))
        except EnvironmentFault as error:
            return Judged(variant, runtime, note=str(error))
        except RuntimeFault as error:
            return Judged(variant, runtime, fault=str(error))
        return Judged(variant, runtime, verification, self.gate.fault(verification), float_estimates=tuple(wanted))

    def convert(self, target: Target, conversion: Conversion, precision: Precision) -> tuple[Judged, ...]:
        """The variants of one precision of a target.

        Where int8 misses the gate, the most sensitive layers go back to float until it passes; where MOST_FLOAT of them
        do not help, the variants as they were first are given back, with what they miss. The files are those of the
        variants that are given back.
        """

        def attempt(layers: FloatLayers) -> tuple[Judged, ...]:
            return tuple(self.judge(variant) for variant in target.convert(conversion, precision, float_layers=layers))

        first = attempt(ALL_QUANTIZED)
        if precision != "int8" or _passes(first):
            return first
        ranking = self._ranking(conversion)
        if not ranking:
            return first
        most = max(1, int(MOST_FLOAT * len(ranking)))
        found = fewest_float_layers(ranking[:most], attempt, _passes)
        if found is None:
            self.step(f"writing {', '.join(one.variant.name for one in first)} as it was first")
            target.convert(conversion, precision, float_layers=ALL_QUANTIZED)
            tried = f"; so it does with the {most} most sensitive of {len(ranking)} layers in float"
            return tuple(one if one.fault is None else replace(one, fault=f"{one.fault}{tried}") for one in first)
        return found[1]

    def _ranking(self, conversion: Conversion) -> tuple[LayerError, ...]:
        if not self.ranking and conversion.feeds is not None:
            self.ranking = rank_layers(conversion.graphs, conversion.feeds, step=self.step)
        return self.ranking

    def _counting(self, title: str) -> OnPicture:
        """Says how many pictures are done."""
        return lambda done: self.step(f"{title}, {done} of {self.pictures}")


def runtime_here(variant: Variant) -> str | None:
    """The runtime that can run a variant on this machine's CPU, the variant's preferred one first."""
    installed = {info.name for info in available_runtimes() if info.version}
    return next((name for name in variant.runtime if name in SAID_HERE and name in installed), None)


def _passes(judged: Sequence[Judged]) -> bool:
    return all(one.fault is None for one in judged)
