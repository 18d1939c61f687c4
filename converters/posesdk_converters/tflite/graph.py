"""What a .tflite file holds: its operators, and names for its tensors that only the graph decides."""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONVOLUTION", "Operator", "free_first_dimension", "name_tensors", "read_operators"]

CONVOLUTION = "CONV_2D"
_SIZES = {"RESHAPE": 1, "SLICE": 2}
"""Operators whose result has the shape that a constant says, and which of their inputs that is."""


@dataclass(frozen=True, eq=False)
class Operator:
    """`kind` as TFLite spells it; `name` is its first output's, of `shape`; `inputs` are the names of what it reads.

    `weights` of a convolution (out, h, w, in) float32, else None.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    weights: NDArray[np.float32] | None = None


def name_tensors(content: bytes) -> bytes:
    """The same graph with the signature's names on its inputs and outputs, and on other tensors kind and number.

    The converter's own names are the Python classes that a tensor came through.
    """
    model = _read(content)
    (graph,) = model.subgraphs
    names = {
        entry.tensorIndex: _text(entry.name)
        for signature in model.signatureDefs
        for entry in (*signature.inputs, *signature.outputs)
    }
    for index, operator in enumerate(graph.operators):
        for tensor in operator.outputs:
            names.setdefault(int(tensor), f"{_kind(model, operator).lower()}_{index}")
    for index, tensor in enumerate(graph.tensors):
        tensor.name = names.get(index, f"constant_{index}").encode()
    return bytes(_tools().convert_object_to_bytearray(model))


def free_first_dimension(content: bytes) -> bytes:
    """The same graph for any length of the first axis, which all that is computed in it shares.

    Shapes that stand in constants are made to follow what they are given; a slice has to take all of the first axis.
    """
    model = _read(content)
    (graph,) = model.subgraphs
    free = {int(tensor) for operator in graph.operators for tensor in operator.outputs} | set(map(int, graph.inputs))
    for operator in graph.operators:
        position = _SIZES.get(_kind(model, operator))
        if position is None:
            continue
        buffer = model.buffers[graph.tensors[operator.inputs[position]].buffer]
        sizes = np.frombuffer(bytes(buffer.data), np.int32).copy()
        sizes[0] = -1
        buffer.data = np.frombuffer(sizes.tobytes(), np.uint8)
    for index in free:
        tensor = graph.tensors[index]
        tensor.shape = np.array([1, *tensor.shape[1:]], np.int32)
        tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    return bytes(_tools().convert_object_to_bytearray(model))


def read_operators(content: bytes) -> tuple[Operator, ...]:
    """The operators of a graph, in the order in which they run."""
    model = _read(content)
    (graph,) = model.subgraphs
    return tuple(_operator(model, graph, operator) for operator in graph.operators)


def _operator(model: Any, graph: Any, operator: Any) -> Operator:
    kind = _kind(model, operator)
    inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
    output = graph.tensors[operator.outputs[0]]
    weights = None
    if kind == CONVOLUTION:
        data = model.buffers[inputs[1].buffer].data
        if data is not None and inputs[1].type == 0:  # FLOAT32
            weights = np.frombuffer(bytes(data), np.float32).reshape(inputs[1].shape)
    return Operator(
        kind,
        _text(output.name),
        tuple(_text(tensor.name) for tensor in inputs),
        tuple(int(side) for side in output.shape),
        weights,
    )


def _kind(model: Any, operator: Any) -> str:
    code = _tools().get_builtin_code_from_operator_code(model.operatorCodes[operator.opcodeIndex])
    known = vars(importlib.import_module("ai_edge_litert.schema_py_generated").BuiltinOperator)
    return next(str(name) for name, value in known.items() if value == code)


def _read(content: bytes) -> Any:
    return _tools().read_model_from_bytearray(bytearray(content))


def _tools() -> Any:
    return importlib.import_module("ai_edge_litert.tools.flatbuffer_utils")


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
