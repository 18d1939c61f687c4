"""What is measured: every variant of every bundle that this machine runs, and the reason for each that it does not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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

Lacking = dict[tuple[str, str], ValueError | EnvironmentFault]
"""By kind of name and name: why a bundle has nothing of it, or nothing that runs here."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which variants are wanted: of each kind of name those that `select_variant` takes, in the order of measuring.

    `threads` None leaves that to the runtime.
    """

    runtime: tuple[str, ...] = (AUTO,)
    device: tuple[str, ...] = (AUTO,)
    precision: tuple[str, ...] = (AUTO,)
    variant: tuple[str, ...] = (AUTO,)
    threads: int | None = None

    def combinations(self) -> Iterator[dict[str, str]]:
        """What `select_variant` is asked for, by kind: each name with each of the other kinds'."""
        kinds = ("variant", "precision", "device", "runtime")
        for names in product(*(getattr(self, kind) for kind in kinds)):
            yield dict(zip(kinds, names, strict=True))


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

    A name that a bundle has nothing of is left out where another one has it. Raises ValueError for names that do not
    exist or that no bundle has, EnvironmentFault where nothing wanted can run here.
    """
    found = [_search(bundle, wanted) for bundle in bundles]
    lacks = [lacking for _, lacking in found]
    _check_names(lacks)
    if not any(candidates for candidates, _ in found):
        faults = [fault for lacking in lacks for fault in lacking.values()]
        raise next((fault for fault in faults if isinstance(fault, EnvironmentFault)), faults[0])
    entries: list[Entry] = []
    missing: list[LeftOut] = []
    for bundle, title, (candidates, lacking) in zip(bundles, _titles(bundles), found, strict=True):
        entries += [Entry(bundle, one, _name(title, one), wanted.threads) for one in candidates]
        missing += [LeftOut(title, reason) for reason in dict.fromkeys(map(str, lacking.values()))]
        if candidates:
            names = {candidate.variant.name for candidate in candidates}
            missing += [
                LeftOut(f"{title} {variant.name}", reason_left_out(variant))
                for variant in bundle.manifest.variants
                if variant.name not in names and _is_wanted(variant, wanted)
            ]
    return entries, missing


def _search(bundle: Bundle, wanted: Selection) -> tuple[list[Candidate], Lacking]:
    """What of a bundle is wanted and can run here, and the fault of every wanted name that gives none of it."""
    candidates: list[Candidate] = []
    given: set[tuple[str, str]] = set()
    faults: Lacking = {}
    for combination in wanted.combinations():
        try:
            more = select_variant(
                bundle.manifest,
                combination["runtime"],
                combination["device"],
                combination["precision"],
                variant=combination["variant"],
            )
        except (ValueError, EnvironmentFault) as fault:
            for name in combination.items():
                if not isinstance(faults.get(name), EnvironmentFault):
                    faults[name] = fault
            continue
        given.update(combination.items())
        candidates += [one for one in more if one not in candidates]
    return candidates, {name: fault for name, fault in faults.items() if name not in given}


def _check_names(lacks: Sequence[Lacking]) -> None:
    """Raises the fault of a name that is none of any bundle's; what this machine lacks is no fault of a name."""
    for name in lacks[0]:
        faults = [lacking.get(name) for lacking in lacks]
        if isinstance(faults[0], ValueError) and all(isinstance(fault, ValueError) for fault in faults):
            raise faults[0]


def _titles(bundles: Sequence[Bundle]) -> list[str]:
    """The models' ids, with the file or all of its path where that alone tells two bundles apart."""
    titles = [bundle.manifest.id for bundle in bundles]
    for places in ([bundle.path.name for bundle in bundles], [str(bundle.path) for bundle in bundles]):
        titles = [
            title if titles.count(title) == 1 else f"{bundle.manifest.id} ({place})"
            for title, bundle, place in zip(titles, bundles, places, strict=True)
        ]
    return titles


def _name(title: str, used: Candidate) -> str:
    return f"{title} {used.variant.name} {used.runtime} {used.device}"


def _is_wanted(variant: Variant, wanted: Selection) -> bool:
    families = (one if one.strip().lower() == AUTO else device_family(parse_device(one)) for one in wanted.device)
    return (
        any(precision in (AUTO, variant.precision) for precision in wanted.precision)
        and any(name in (AUTO, variant.name) for name in wanted.variant)
        and any(runtime in (AUTO, *variant.runtime) for runtime in wanted.runtime)
        and any(family in (AUTO, *variant.devices) for family in families)
    )
