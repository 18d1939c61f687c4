"""What a conversion target is, and how one is found by its name: a new target is one module in `targets`."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, cast

from posesdk.manifest import Precision, Variant
from posesdk_converters import targets

if TYPE_CHECKING:
    from posesdk_converters.calibration import Feeds
    from posesdk_runtimes.base import Tensor
    from posesdk_training.models.build import PoseModel

__all__ = [
    "ALL_QUANTIZED",
    "PORTABLE",
    "Conversion",
    "FloatLayers",
    "Graph",
    "Target",
    "find_target",
    "fused_precisions",
    "portable_variant",
    "target_names",
]

PORTABLE = "portable"
"""Folder of the float32 ONNX graphs that every bundle holds."""

Graph = Literal["trunk", "adapt"]
FloatLayers = Mapping[Graph, tuple[str, ...]]
"""Layers that an int8 variant keeps in float: names of Conv nodes in the portable graphs, of whatever target."""
ALL_QUANTIZED: FloatLayers = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Conversion:
    """What a target works on.

    `folder` is the bundle being filled, with the graphs of `portable` already in it; `model` is the torch model in
    evaluation mode that they were exported from. `feeds` are inputs of both graphs from calibration images, at the
    input sizes of the portable graphs; None unless int8 was asked for. `input_size` (height, width) is asked for by the
    user; None leaves it to the target. `fused` asks for the graph that holds the whole adaptation, where a target can.
    """

    folder: Path
    portable: Variant
    model: "PoseModel"
    feeds: "Feeds | None" = None
    input_size: tuple[int, int] | None = None
    fused: bool = False
    notes: dict[str, str] = field(default_factory=dict)
    """What a target wants to have in the manifest's provenance: the versions of its tools."""

    @property
    def graphs(self) -> dict[Graph, Path]:
        """The files of the portable graphs: the trunk, and the adapt graph where the model has one."""
        paths: dict[Graph, str | None] = {"trunk": self.portable.trunk, "adapt": self.portable.adapt}
        return {graph: self.folder / path for graph, path in paths.items() if path is not None}

    def int8_feeds(self, target: str) -> "Mapping[Graph, tuple[Tensor, ...]]":
        """The calibration inputs of each graph. Raises ValueError, which names the target, where there are none."""
        if self.feeds is None or not self.feeds.trunk:
            raise ValueError(f"target {target}: int8 needs calibration images; give some with --calibration")
        return {"trunk": self.feeds.trunk, "adapt": self.feeds.adapt}


class Target(Protocol):
    """The content of one module in `targets`."""

    SUMMARY: str
    """One line for `--help`."""
    PRECISIONS: tuple[Precision, ...]
    """What the target can make, the default first."""

    def convert(
        self, conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
    ) -> tuple[Variant, ...]:
        """Writes the files of one precision into a folder `<target>-<precision>` of the bundle; its variants, if any.

        None where the portable graphs are all that it takes. Called again for int8 with more `float_layers`, it writes
        the same files anew. Raises MissingDependencyError where the vendor's converter is not installed.
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


def fused_precisions(name: str) -> tuple[Precision, ...]:
    """In which precisions a target makes the graph that holds the whole adaptation; most targets make none."""
    return cast(tuple[Precision, ...], getattr(find_target(name), "FUSED", ()))


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
