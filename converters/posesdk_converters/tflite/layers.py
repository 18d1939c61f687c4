"""Which operators of a .tflite graph stay float in int8, and which convolutions are which of the ONNX graph's."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from posesdk_converters.tflite.graph import CONVOLUTION, Operator
from posesdk_converters.verification.sensitivity import layers_of
from posesdk_runtimes.errors import GateError

__all__ = ["float_operators", "match_convolutions"]

_ARITHMETIC = frozenset({"CAST", "SUB", "MUL", "RSQRT", "AVERAGE_POOL_2D", "LOGISTIC"})
"""Normalisation of the image, statistics of a person, activation of the heatmaps: where 256 levels are too few, and of
which XNNPACK does not take all in int8."""
_SAME = 0.999
"""Least cosine between the weights of one channel in both graphs; rounding leaves 1 - 1e-6."""

Floats = NDArray[np.float32]


def float_operators(operators: Sequence[Operator]) -> tuple[str, ...]:
    """Names of the operators that stay float in every int8 graph, in their order.

    Besides arithmetic these are what follows it up to the next convolution, convolutions of statistics (1x1 maps), and
    everything from the last convolution before an output on: one step of an int8 offset would be 0.7 px.
    """
    kept: set[str] = set()
    for operator in operators:
        follows = any(name in kept for name in operator.inputs)
        statistics = operator.kind == CONVOLUTION and operator.shape[1:3] == (1, 1)
        if operator.kind in _ARITHMETIC or (follows and (operator.kind == "ADD" or statistics)):
            kept.add(operator.name)
    read = {name for operator in operators for name in operator.inputs}
    makers = {operator.name: operator for operator in operators}
    waiting = [operator for operator in operators if operator.name not in read]
    while waiting:
        operator = waiting.pop()
        kept.add(operator.name)
        if operator.kind != CONVOLUTION:
            waiting += [makers[name] for name in operator.inputs if name in makers]
    return tuple(operator.name for operator in operators if operator.name in kept)


def match_convolutions(operators: Iterable[Operator], portable: Path) -> dict[str, str]:
    """By the name of each Conv node of the portable graph, the operator of the float32 .tflite that has its weights.

    Converters fold other factors into the weights of a channel, so directions are compared, not lengths. Raises
    GateError where the graphs do not match one to one.
    """
    model = onnx.load(portable)
    weights = {value.name: value for value in model.graph.initializer}
    free = [operator for operator in operators if operator.weights is not None]
    nodes = layers_of(model)
    where = f"{portable.name} has {len(nodes)} convolutions with weights, its TFLite graph {len(free)}"
    if len(free) != len(nodes):
        raise GateError(f"{where}; use the pinned litert-torch")
    found = {}
    for node in nodes:
        wanted = _directions(numpy_helper.to_array(weights[node.input[1]]).transpose(0, 2, 3, 1))
        match = next((operator for operator in free if _is_same(wanted, operator)), None)
        if match is None:
            raise GateError(f"{where}, and none of these has the weights of {node.name}; use the pinned litert-torch")
        free.remove(match)
        found[node.name] = match.name
    return found


def _is_same(wanted: Floats, operator: Operator) -> bool:
    assert operator.weights is not None
    if operator.weights.shape != wanted.shape:
        return False
    cosines = (wanted * _directions(operator.weights)).sum(axis=(1, 2, 3))
    silent = ~wanted.any(axis=(1, 2, 3)) & ~operator.weights.any(axis=(1, 2, 3))
    return bool(((np.abs(cosines) > _SAME) | silent).all())


def _directions(weights: Floats) -> Floats:
    lengths = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(weights / np.maximum(lengths, np.finfo(np.float64).tiny), np.float32)
