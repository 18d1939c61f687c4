"""What a conversion target is, and how one is found by its name: a new target is one module in `targets`."""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from posesdk.manifest import Precision, Variant
from posesdk_converters import targets

__all__ = ["PORTABLE", "Conversion", "Target", "find_target", "portable_variant", "target_names"]

PORTABLE = "portable"
"""Folder of the float32 ONNX graphs that every bundle holds."""


@dataclass(frozen=True)
class Conversion:
    """What a target works on: `folder` is the bundle being filled, with the graphs of `portable` already in it."""

    folder: Path
    portable: Variant
    precisions: tuple[Precision, ...]


class Target(Protocol):
    """The content of one module in `targets`."""

    SUMMARY: str
    """One line for `--help`."""
    PRECISIONS: tuple[Precision, ...]
    """What the target can make, the default first."""

    def convert(self, conversion: Conversion) -> tuple[Variant, ...]:
        """Adds the target's files to the folder; its variants besides the portable one, the preferred first.

        Raises MissingDependencyError where the vendor's converter is not installed.
        """
        ...


def target_names() -> tuple[str, ...]:
    """The names of all targets, sorted; loads none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(targets.__path__)))


def find_target(name: str) -> Target:
    """The target of that name. Raises ValueError, with the known names, for any other."""
    if name not in target_names():
        raise ValueError(f"no target {name!r}; known: {', '.join(target_names())}")
    return cast(Target, importlib.import_module(f"{targets.__name__}.{name}"))


def portable_variant(*, adapt: bool, input_size: tuple[int, int] | None) -> Variant:
    """The variant of the float32 ONNX graphs; `adapt` where the model has that graph."""
    return Variant(
        name=f"{PORTABLE}-fp32",
        runtime=("onnxruntime", "openvino"),
        devices=("cpu", "cuda", "gpu"),
        precision="fp32",
        trunk=f"{PORTABLE}/trunk.onnx",
        adapt=f"{PORTABLE}/adapt.onnx" if adapt else None,
        runtime_precision="f32",
        input_size=input_size,
    )
