"""What is measured: every variant of every bundle that this machine runs, and the reason for each that it does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posesdk.bundle import Bundle
from posesdk.detector import Detector
from posesdk.manifest import Variant
from posesdk.pipeline import Pipeline, open_pipeline
from posesdk.selftest import reason_left_out
from posesdk.variants import AUTO, Candidate, select_variant
from posesdk_runtimes.errors import EnvironmentFault
from posesdk_runtimes.registry import device_family, parse_device

__all__ = ["Entry", "LeftOut", "Selection", "find_entries"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which variants are wanted, as for `Detector`, and with how many threads; None leaves that to the runtime."""

    runtime: str = AUTO
    device: str = AUTO
    precision: str = AUTO
    variant: str = AUTO
    threads: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A variant of a bundle on one backend and device: a row of the tables, called `name`."""

    bundle: Bundle
    candidate: Candidate
    name: str
    threads: int | None = None

    def detector(self) -> Detector:
        """A detector that uses it. Raises EnvironmentFault where this machine cannot run it after all."""
        return Detector(self.bundle.path, **self.settings())

    def pipeline(self) -> Pipeline:
        """The same below the detector."""
        return open_pipeline(self.bundle, self.candidate, threads=self.threads)

    def settings(self) -> dict[str, Any]:
        """Arguments of `Detector` that choose it."""
        used = self.candidate
        place = {"runtime": used.runtime, "device": used.device, "variant": used.variant.name}
        return place | {"threads": self.threads}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was asked for and is not measured; `failed` where its backend failed, which is no matter of the machine."""

    name: str
    reason: str
    failed: bool = False


def find_entries(bundles: Sequence[Bundle], wanted: Selection) -> tuple[list[Entry], list[LeftOut]]:
    """Every wanted variant on every installed backend and device, the bundles in their order, and those left out.

    A bundle that has nothing of what is wanted is left out where another one has it. Raises ValueError for names that
    do not exist or that no bundle has, EnvironmentFault where nothing wanted can run here.
    """
    titles = _titles(bundles)
    entries: list[Entry] = []
    missing: list[LeftOut] = []
    faults: list[ValueError | EnvironmentFault] = []
    for bundle, title in zip(bundles, titles, strict=True):
        try:
            candidates = select_variant(
                bundle.manifest, wanted.runtime, wanted.device, wanted.precision, variant=wanted.variant
            )
        except (ValueError, EnvironmentFault) as fault:
            faults.append(fault)
            missing.append(LeftOut(title, str(fault)))
            continue
        entries += [Entry(bundle, one, _name(title, one), wanted.threads) for one in candidates]
        found = {candidate.variant.name for candidate in candidates}
        missing += [
            LeftOut(f"{title} {variant.name}", reason_left_out(variant))
            for variant in bundle.manifest.variants
            if variant.name not in found and _is_wanted(variant, wanted)
        ]
    if not entries:
        raise next((fault for fault in faults if isinstance(fault, EnvironmentFault)), faults[0])
    return entries, missing


def _titles(bundles: Sequence[Bundle]) -> list[str]:
    """The models' ids, with the file where two bundles have the same one."""
    ids = [bundle.manifest.id for bundle in bundles]
    return [
        own if ids.count(own) == 1 else f"{own} ({bundle.path.name})" for own, bundle in zip(ids, bundles, strict=True)
    ]


def _name(title: str, used: Candidate) -> str:
    return f"{title} {used.variant.name} {used.runtime} {used.device}"


def _is_wanted(variant: Variant, wanted: Selection) -> bool:
    family = AUTO if wanted.device.strip().lower() == AUTO else device_family(parse_device(wanted.device))
    return (
        wanted.precision in (AUTO, variant.precision)
        and wanted.variant in (AUTO, variant.name)
        and wanted.runtime in (AUTO, *variant.runtime)
        and family in (AUTO, *variant.devices)
    )
