"""`engine.json`: how the TensorRT engines of the ONNX graphs beside it are built on a device.

::

    {"trunk": {"profiles": {"image": {"min": [1, 32, 32, 3], "opt": [1, 256, 320, 3], "max": [2, 320, 320, 3]}},
               "strongly_typed": true, "workspace_mib": 1024},
     "adapt": {...}}

A key is the name of a graph's file without its suffix. `profiles` names the inputs that have free dimensions.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.errors import ArtifactError

__all__ = [
    "RECIPE_NAME",
    "GraphRecipe",
    "ShapeRange",
    "default_recipe",
    "parse_recipes",
    "read_recipe",
    "read_recipes",
    "recipe_from_dict",
    "write_recipes",
]

RECIPE_NAME = "engine.json"
WORKSPACE_MIB = 1024

_BATCH = (1, 1, 2)
"""Images at once: a flip test runs two."""
_SIDE = (32, 320, 640)
_ROWS = (1, 5, 64)
"""Smallest, usual and largest size of the free dimensions of a graph that comes without a recipe."""
_IMAGE_RANK = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Shapes that one input may have: the smallest, the one that the engine is tuned for, the largest."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        """Raises ValueError unless min <= opt <= max in every dimension."""
        if not len(self.min) == len(self.opt) == len(self.max) or not self.min:
            raise ValueError(f"expected three shapes of one rank, got {self.min}, {self.opt}, {self.max}")
        sides = zip(self.min, self.opt, self.max, strict=True)
        if any(not 0 < low <= usual <= high for low, usual, high in sides):
            raise ValueError(f"expected 0 < min <= opt <= max, got {self.min}, {self.opt}, {self.max}")

    def __str__(self) -> str:
        return "/".join("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))


@dataclass(frozen=True, slots=True)
class GraphRecipe:
    """How one graph is built.

    `profiles` by input name; empty where no input has a free dimension. `strongly_typed`: every tensor keeps the
    element type that the graph gives it. `workspace_mib`: most scratch memory of a layer.
    """

    profiles: Mapping[str, ShapeRange] = field(default_factory=dict)
    strongly_typed: bool = True
    workspace_mib: int = WORKSPACE_MIB

    def __post_init__(self) -> None:
        """Raises ValueError for a workspace below 1 MiB."""
        if self.workspace_mib < 1:
            raise ValueError(f"expected a workspace of at least 1 MiB, got {self.workspace_mib}")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "profiles": {
                name: {"min": list(shapes.min), "opt": list(shapes.opt), "max": list(shapes.max)}
                for name, shapes in self.profiles.items()
            },
            "strongly_typed": self.strongly_typed,
            "workspace_mib": self.workspace_mib,
        }


def write_recipes(path: str | os.PathLike[str], recipes: Mapping[str, GraphRecipe]) -> None:
    """Writes `engine.json`; the same recipes give the same bytes."""
    content = {name: recipes[name].to_dict() for name in sorted(recipes)}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_recipes(path: str | os.PathLike[str]) -> dict[str, GraphRecipe]:
    """The recipes in a file, by graph. Raises ArtifactError for a file that cannot be read or holds something else."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read the build recipe {path}: {error.strerror}; get the bundle again") from error
    return parse_recipes(data, os.fspath(path))


def parse_recipes(data: bytes, where: str) -> dict[str, GraphRecipe]:
    """The recipes in the content of a file; `where` names it in errors. Raises ArtifactError."""
    try:
        content = json.loads(data)
        return {str(name): recipe_from_dict(entry) for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"cannot read the build recipe {where}: {type(error).__name__}: {error}; convert the checkpoint again with "
            "this version"
        ) from error


def read_recipe(graph: str | os.PathLike[str]) -> GraphRecipe | None:
    """What the `engine.json` beside an ONNX file says about it; None if there is none, or it leaves the graph out."""
    path = Path(graph).parent / RECIPE_NAME
    return read_recipes(path).get(Path(graph).stem) if path.is_file() else None


def default_recipe(inputs: Sequence[TensorSpec]) -> GraphRecipe:
    """For a graph without a recipe: images of up to 640 px, up to 64 rows of anything else."""
    return GraphRecipe({spec.name: _default_range(spec) for spec in inputs if None in spec.shape})


def recipe_from_dict(entry: Mapping[str, Any]) -> GraphRecipe:
    """The recipe that `GraphRecipe.to_dict` gave. Raises ValueError, TypeError or KeyError for something else."""
    unknown = sorted(set(entry) - {"profiles", "strongly_typed", "workspace_mib"})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    typed, workspace = entry.get("strongly_typed", True), entry.get("workspace_mib", WORKSPACE_MIB)
    if not isinstance(typed, bool) or isinstance(workspace, bool) or not isinstance(workspace, int):
        raise TypeError(f"strongly_typed {typed!r} or workspace_mib {workspace!r} has the wrong type")
    profiles = {str(name): _range(shapes) for name, shapes in entry.get("profiles", {}).items()}
    return GraphRecipe(profiles, typed, workspace)


def _default_range(spec: TensorSpec) -> ShapeRange:
    is_image = len(spec.shape) == _IMAGE_RANK and None in spec.shape[1:]
    first = _BATCH if is_image else _ROWS
    free = [first if axis == 0 else _SIDE for axis in range(len(spec.shape))]
    low, usual, high = (
        tuple(free[axis][bound] if size is None else size for axis, size in enumerate(spec.shape)) for bound in range(3)
    )
    return ShapeRange(low, usual, high)


def _range(shapes: Mapping[str, Any]) -> ShapeRange:
    return ShapeRange(*(_shape(shapes[bound]) for bound in ("min", "opt", "max")))


def _shape(sides: Any) -> Shape:
    if not isinstance(sides, list) or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise TypeError(f"expected a list of whole numbers, got {sides!r}")
    return tuple(sides)
