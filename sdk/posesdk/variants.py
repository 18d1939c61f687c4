"""Which variant of a bundle to run, by which backend, on which device."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

from posesdk.manifest import Manifest, Precision, Variant
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError
from posesdk_runtimes.registry import (
    RUNTIMES,
    RuntimeInfo,
    available_runtimes,
    device_family,
    is_jetson,
    parse_device,
)

__all__ = ["Candidate", "select_variant"]

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a bundle here; `device` as `posesdk_runtimes.registry.parse_device` spells it."""

    variant: Variant
    runtime: str
    device: str


def select_variant(
    manifest: Manifest,
    runtime: str = AUTO,
    device: str = AUTO,
    precision: str = AUTO,
    *,
    variant: str = AUTO,
    runtimes: Sequence[RuntimeInfo] | None = None,
    jetson: bool | None = None,
) -> tuple[Candidate, ...]:
    """Every way to run the bundle with what is installed, the preferred one first; at least one.

    `variant` is the name of one. "auto" for the device is CUDA where a backend and a driver are there, then the CPU. On
    one device the order is the manifest's: its variants, and the runtimes of each variant; only, on a `jetson` what was
    made for it stands first, on other machines what was made for NVIDIA cards. Raises ValueError for a name that does
    not exist or that the bundle does not have, MissingDependencyError and DeviceUnavailableError for what this machine
    does not have.
    """
    known = {info.name: info for info in (available_runtimes() if runtimes is None else runtimes)}
    here = "jetson" if (is_jetson() if jetson is None else jetson) else "cuda"
    variants = sorted(_wanted(manifest, variant, precision), key=lambda one: one.platform != here)
    names = _usable(manifest, variants, runtime, known)
    places = (parse_device(device),) if device.strip().lower() != AUTO else _auto_devices(known, names)
    able = [
        Candidate(one, name, place)
        for place in places
        for one in variants
        for name in one.runtime
        if runtime in (AUTO, name) and name in RUNTIMES and _fits(one, RUNTIMES[name], place)
    ]
    found = tuple(candidate for candidate in able if candidate.runtime in names)
    if not found and able:
        lacking = dict.fromkeys(candidate.runtime for candidate in able)
        raise MissingDependencyError(
            f"bundle {manifest.id} runs {', '.join(dict.fromkeys(one.variant.name for one in able))} on "
            f"{'/'.join(places)} with {' or '.join(lacking)} only, which is not installed here; {_advice(lacking)}"
        )
    if not found:
        asked = f" as {variant}" * (variant != AUTO) + f" in precision {precision}" * (precision != AUTO)
        raise DeviceUnavailableError(
            f"bundle {manifest.id} cannot run on {'/'.join(places)} with {', '.join(names)}{asked}: it has "
            f"{_listing(manifest)}; ask for one of these, or convert the checkpoint for that device"
        )
    return found


def _wanted(manifest: Manifest, name: str, precision: str) -> tuple[Variant, ...]:
    if precision not in (AUTO, *get_args(Precision)):
        raise ValueError(f"expected a precision of {', '.join((AUTO, *get_args(Precision)))}, got {precision!r}")
    named = tuple(variant for variant in manifest.variants if name in (AUTO, variant.name))
    if not named:
        raise ValueError(f"bundle {manifest.id} has no variant {name!r}: it has {_listing(manifest)}")
    variants = tuple(variant for variant in named if precision in (AUTO, variant.precision))
    if not variants:
        raise ValueError(
            f"bundle {manifest.id} has no variant {'' if name == AUTO else f'{name!r} '}in {precision}: it has "
            f"{_listing(manifest)}"
        )
    return variants


def _usable(
    manifest: Manifest, variants: Sequence[Variant], runtime: str, known: dict[str, RuntimeInfo]
) -> tuple[str, ...]:
    if runtime not in (AUTO, *RUNTIMES):
        raise ValueError(f"expected a runtime of {', '.join((AUTO, *RUNTIMES))}, got {runtime!r}")
    wanted = dict.fromkeys(name for variant in variants for name in variant.runtime if runtime in (AUTO, name))
    if runtime != AUTO and not wanted:
        among = "" if len(variants) == len(manifest.variants) else f" in {', '.join(one.name for one in variants)}"
        raise ValueError(f"bundle {manifest.id} has nothing for {runtime}{among}: it has {_listing(manifest)}")
    names = tuple(name for name in wanted if name in known and known[name].version is not None)
    if not names:
        raise MissingDependencyError(
            f"bundle {manifest.id} runs with {', '.join(wanted)}, and none of it is installed here; {_advice(wanted)}"
        )
    return names


def _advice(runtimes: Collection[str]) -> str:
    """How one of these backends can be had."""
    commands = [f"`{RUNTIMES[name].install}`" for name in runtimes if name in RUNTIMES and name != "tensorrt"]
    advice = [f"install it with {' or '.join(commands)}"] if commands else []
    if "tensorrt" in runtimes:
        from posesdk_runtimes.tensorrt.runtime import how_to_install  # what it loads is of use here only

        advice.append(f"TensorRT: {how_to_install()}" if commands else how_to_install())
    return "; ".join(advice) or "upgrade posesdk"


def _auto_devices(known: dict[str, RuntimeInfo], names: Sequence[str]) -> tuple[str, ...]:
    return ("cuda:0", "cpu") if any("cuda" in known[name].devices for name in names) else ("cpu",)


def _fits(variant: Variant, info: RuntimeInfo, device: str) -> bool:
    family = device_family(device)
    return family in variant.devices and family in info.families and variant.runtime_precision in info.precisions


def _listing(manifest: Manifest) -> str:
    return ", ".join(
        f"{variant.name} ({variant.precision}, {'/'.join(variant.runtime)} on {'/'.join(variant.devices)})"
        for variant in manifest.variants
    )
