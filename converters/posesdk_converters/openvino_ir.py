"""OpenVINO IR files of the portable graphs."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.openvino import import_openvino, shared_core

__all__ = ["find_layers", "float_convolutions", "read_graph", "save_ir"]

_COUNTED = re.compile(r"[A-Z][A-Za-z0-9]*_\d+")


def read_graph(path: Path) -> Any:
    """An `openvino.Model` of an ONNX file. Raises MissingDependencyError where OpenVINO is not installed."""
    try:
        core = shared_core()
    except ImportError as error:
        raise MissingDependencyError(
            f"converting {path.name} for OpenVINO: it cannot be imported ({error}); "
            "install it with `pip install 'posesdk[convert]'`"
        ) from error
    from openvino.passes import ConstantFolding, Manager

    model = core.read_model(path)
    passes = Manager()
    passes.register_pass(ConstantFolding())  # so that a bias is a constant and not a reshaped one
    passes.run_passes(model)
    _number_names(model)
    return model


def find_layers(model: Any, source: Path, names: Sequence[str]) -> list[str]:
    """The names that convolutions of the ONNX file `source` have in the `openvino.Model` that was read from it.

    With them come the operators between them and the next convolutions, such as the addition of a residual. They are
    found by their weights: OpenVINO's reader adds to the names of nodes, and gives the name of a node that it takes out
    to its neighbour. Raises ValueError for a name that is no convolution of the file.
    """
    if not names:
        return []
    weights = {node.name: node.input[1] for node in onnx.load(source).graph.node if node.op_type == "Conv"}
    if unknown := [name for name in names if name not in weights]:
        raise ValueError(f"{source}: no convolution {', '.join(unknown)} in it; it has {', '.join(weights)}")
    own = {
        node.input_value(1).get_node().get_friendly_name(): node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "Convolution"
    }
    found = [own[weights[name]] for name in names]
    return found + _followers(model, set(found))


def float_convolutions(model: Any, source: Path) -> list[str]:
    """The convolutions of the ONNX file `source`, in its order, whose weights are float in the `openvino.Model`."""
    read = {
        node.input_value(1).get_node().get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "Convolution" and node.input_value(1).get_node().get_type_name() == "Constant"
    }
    graph = onnx.load(source).graph
    return [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in read]


def _followers(model: Any, layers: set[str]) -> list[str]:
    """The operators behind these convolutions, as far as the first one that brings in something else."""
    reached, followers = set(layers), []
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "Constant", "Result", "ShapeOf"):
            continue
        sources = [value.get_node() for value in node.input_values()]
        names = {source.get_friendly_name() for source in sources if source.get_type_name() != "Constant"}
        if names & reached:
            followers.append(node.get_friendly_name())
            if len(names) == 1:
                reached.add(node.get_friendly_name())
    return followers


def save_ir(model: Any, path: Path, *, half: bool = False) -> None:
    """Writes `path` (.xml) and the .bin beside it; `half` stores the weights in half the bytes, as float16."""
    openvino = import_openvino()
    _number_names(model)
    scratch = path.with_name(f".new-{path.name}")
    openvino.save_model(model, scratch, compress_to_fp16=half)
    os.replace(scratch.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(scratch, path)


def _number_names(model: Any) -> None:
    """Gives nodes that OpenVINO named by a count of all nodes of the process names that only the model decides."""
    for index, node in enumerate(model.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
