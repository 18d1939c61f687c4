"""Whether the graphs of a bundle are those of its model."""

from collections.abc import Iterable
from pathlib import Path

from posesdk.methods import Shapes, method_of, trunk_outputs
from posesdk.spec import ModelSpec
from posesdk_runtimes.base import Runtime, TensorSpec
from posesdk_runtimes.errors import BundleError

__all__ = ["check_fused", "check_graphs"]


def check_graphs(trunk: Runtime, adapt: Runtime | None, spec: ModelSpec, bundle: Path) -> None:
    """Raises BundleError for graphs with other tensors than the model's, or without the `adapt` graph that it needs."""
    method = method_of(spec)
    maps = trunk_outputs(spec)
    _check_names(trunk, "trunk", {"image"}, set(maps), bundle)
    _check_shapes(trunk.outputs, maps, bundle)
    if adapt is not None:
        outputs = method.adapt_outputs(spec)
        _check_names(adapt, "adapt", {"context"}, set(outputs), bundle)
        _check_shapes((*adapt.inputs, *adapt.outputs), outputs | {"context": method.context_shape(spec)}, bundle)
    elif method.needs_adapt(spec):
        raise BundleError(f"bundle {bundle} has no adapt graph, which its model needs; convert the checkpoint again")


def check_fused(graph: Runtime, spec: ModelSpec, bundle: Path) -> None:
    """Raises BundleError for a fused graph with other tensors than the model's."""
    count = spec.keypoint_count
    outputs: Shapes = {"keypoints": (None, count, 2), "keypoint_scores": (None, count), "center_scores": (None,)}
    _check_names(graph, "fused", {"image"}, set(outputs), bundle)
    _check_shapes(graph.outputs, outputs, bundle)


def _check_names(runtime: Runtime, graph: str, inputs: set[str], outputs: set[str], bundle: Path) -> None:
    has_inputs, has_outputs = ({port.name for port in ports} for ports in (runtime.inputs, runtime.outputs))
    if has_inputs != inputs or not outputs <= has_outputs:
        raise BundleError(
            f"the {graph} graph of bundle {bundle} takes {sorted(has_inputs)} and gives {sorted(has_outputs)}, "
            f"expected {sorted(inputs)} and {sorted(outputs)}; convert the checkpoint again with this version"
        )


def _check_shapes(ports: Iterable[TensorSpec], expected: Shapes, bundle: Path) -> None:
    for port in ports:
        wanted = expected.get(port.name, port.shape)
        sides = zip(port.shape, wanted, strict=False)
        if len(port.shape) != len(wanted) or any(None not in pair and pair[0] != pair[1] for pair in sides):
            raise BundleError(
                f"bundle {bundle}: its graph has {port.name} of shape {_text(port.shape)}, the model of its manifest "
                f"{_text(wanted)}; convert the checkpoint again with this version"
            )


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
