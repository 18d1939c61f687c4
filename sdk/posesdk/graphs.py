"""Whether the graphs of a bundle are those of its model."""

from collections.abc import Iterable
from pathlib import Path

from posesdk.adapt import uses_attraction
from posesdk.spec import ModelSpec
from posesdk_runtimes.base import Runtime, TensorSpec
from posesdk_runtimes.errors import BundleError

__all__ = ["check_fused", "check_graphs"]

Shape = tuple[int | None, ...]


def check_graphs(trunk: Runtime, adapt: Runtime | None, spec: ModelSpec, bundle: Path) -> None:
    """Raises BundleError for graphs with other tensors than the model's, or without the `adapt` graph that it needs."""
    _check_names(trunk, "trunk", {"image"}, {"heatmaps", "offsets", "embedding"}, bundle)
    _check_shapes(trunk.outputs, spec, bundle)
    if adapt is not None:
        _check_names(adapt, "adapt", {"context"}, {"attraction_maps"}, bundle)
        _check_shapes((*adapt.inputs, *adapt.outputs), spec, bundle)
    elif uses_attraction(spec):
        raise BundleError(f"bundle {bundle} has no adapt graph, which its model needs; convert the checkpoint again")


def check_fused(graph: Runtime, spec: ModelSpec, bundle: Path) -> None:
    """Raises BundleError for a fused graph with other tensors than the model's."""
    _check_names(graph, "fused", {"image"}, {"keypoints", "keypoint_scores", "center_scores"}, bundle)
    _check_shapes(graph.outputs, spec, bundle)


def _check_names(runtime: Runtime, graph: str, inputs: set[str], outputs: set[str], bundle: Path) -> None:
    has_inputs, has_outputs = ({port.name for port in ports} for ports in (runtime.inputs, runtime.outputs))
    if has_inputs != inputs or not outputs <= has_outputs:
        raise BundleError(
            f"the {graph} graph of bundle {bundle} takes {sorted(has_inputs)} and gives {sorted(has_outputs)}, "
            f"expected {sorted(inputs)} and {sorted(outputs)}; convert the checkpoint again with this version"
        )


def _check_shapes(ports: Iterable[TensorSpec], spec: ModelSpec, bundle: Path) -> None:
    count, depth, mesh = spec.keypoint_count, spec.heads.embedding, spec.adaptation.local_size
    expected: dict[str, Shape] = {
        "heatmaps": (None, count + 1, None, None),
        "offsets": (None, 2 * count, None, None),
        "embedding": (None, None, None, depth),
        "context": (None, count * depth, mesh, mesh),
        "attraction_maps": (None, count, mesh, mesh),
        "keypoints": (None, count, 2),
        "keypoint_scores": (None, count),
        "center_scores": (None,),
    }
    for port in ports:
        wanted = expected.get(port.name, port.shape)
        sides = zip(port.shape, wanted, strict=False)
        if len(port.shape) != len(wanted) or any(None not in pair and pair[0] != pair[1] for pair in sides):
            raise BundleError(
                f"bundle {bundle}: its graph has {port.name} of shape {_text(port.shape)}, the model of its manifest "
                f"{_text(wanted)}; convert the checkpoint again with this version"
            )


def _text(shape: Shape) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
