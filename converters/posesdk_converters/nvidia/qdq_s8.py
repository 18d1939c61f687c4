"""Explicit int8: QuantizeLinear/DequantizeLinear pairs, signed and symmetric, before the convolutions of a graph.

The form that TensorRT takes: zero points are int8 and 0, weights have a scale per output channel, biases stay float.
Outputs of convolutions are not quantized, so that sums and the heads keep their precision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posesdk_converters.nvidia.activations import BINS, magnitude_counts, magnitudes
from posesdk_converters.nvidia.fp16 import last_layers_of, statistics_of
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.errors import GateError

__all__ = ["LEVELS", "activation_ranges", "check_quantized", "quantizable", "quantize"]

LEVELS = 127
"""Largest int8 level; -128 is not used, so that the levels are symmetric."""
_READS_INT8 = ("Add", "Concat", "MaxPool", "Resize")
"""Operators that read what a convolution reads in the same int8 form: TensorRT then adds a residual in the convolution
that came before it, and no float copy of it has to be kept."""

_SHARES = np.linspace(0.2, 1, 81)
"""Ranges that are tried, as shares of the largest value."""

Floats = NDArray[np.floating]
_TYPES: dict[int, np.dtype[np.floating]] = {TensorProto.FLOAT16: np.dtype("f2"), TensorProto.FLOAT: np.dtype("f4")}


def quantizable(model: onnx.ModelProto) -> dict[str, str]:
    """The tensor that each convolution with stored weights reads, by the name of its node.

    Left out are convolutions of statistics, a handful of products that decide about a whole person, and the last
    layers, which are small and whose rounding goes straight into coordinates and scores: without theirs the keypoints
    of the default model move by 0.85 px in place of 0.89 in the median, by 3.6 in place of 4.3 at the 90th percentile.
    """
    stored = {value.name for value in model.graph.initializer}
    statistics, last = statistics_of(model), last_layers_of(model)
    return {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] in stored
        and node.input[0] not in statistics
        and node.output[0] not in last
    }


def activation_ranges(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, float]:
    """For each tensor of a float32 graph the magnitude to become LEVELS: that of the least mean square error.

    Of the largest value it is a share of 0.5 to 0.8 as a rule. Tensors that are 0 throughout are left out.
    """
    found = magnitudes(model, tuple(dict.fromkeys(names)), inputs)
    largest = {name: top for name, top in found.items() if top > 0}
    counts = magnitude_counts(model, largest, inputs)
    return {name: _least_error(counts[name]) * top for name, top in largest.items()}


def quantize(model: onnx.ModelProto, ranges: Mapping[str, float], weights: Mapping[str, Floats]) -> onnx.ModelProto:
    """A copy of a graph in which the convolutions named in `weights` read int8 values.

    `ranges` is by convolution, as are the float32 `weights` (C, C', h, w), which may be finer than those of the graph.
    Scales have the float type that the convolution computes in. Sums and resizings of the same tensors read the int8
    values, too.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    convolutions = [node for node in graph.node if node.name in weights]
    types = {node.name: _TYPES[kinds[node.input[1]]] for node in convolutions}
    writing = _Writing({node.input[0]: _scale(ranges[node.name], types[node.name]) for node in convolutions})
    for node in graph.node:
        if node.name in weights:
            node.input[0] = writing.activation(node.input[0])
            node.input[1] = writing.weight(node.input[1], weights[node.name], types[node.name])
        elif node.op_type in _READS_INT8:
            for index, name in enumerate(node.input):
                node.input[index] = writing.activation(name)
        writing.nodes.append(node)
    del graph.node[:]
    graph.node.extend(writing.nodes)
    used = {name for node in writing.nodes for name in node.input}
    kept = [value for value in (*graph.initializer, *writing.constants) if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return quantized


def check_quantized(model: onnx.ModelProto, where: str) -> None:
    """Raises GateError for what TensorRT refuses or takes for something else: see the rules of this module."""
    constants = {value.name: value for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
            raise GateError(f"{where}: the zero point of {node.name} is not an int8 of 0, which TensorRT needs")
        source = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and source is not None and source.data_type != TensorProto.INT8:
            raise GateError(f"{where}: {node.name} dequantizes a constant that is not int8, which TensorRT refuses")


class _Writing:
    """The nodes and constants of a graph that is being quantized; `scales` of the tensors that become int8."""

    def __init__(self, scales: Mapping[str, Floats]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._scales = scales
        self._done: dict[str, str] = {}

    def activation(self, name: str) -> str:
        """What to read in place of a tensor: its int8 values, or the tensor itself where it does not become int8."""
        if name not in self._scales:
            return name
        if name not in self._done:
            parameters = self._parameters(name, self._scales[name])
            levels = self._node("QuantizeLinear", [name, *parameters], f"{name}_quantized")
            self._done[name] = self._node("DequantizeLinear", [levels, *parameters], f"{name}_dequantized")
        return self._done[name]

    def weight(self, name: str, values: Floats, kind: np.dtype[np.floating]) -> str:
        """What to read in place of weights (C, C', h, w), which are rounded with one scale per output channel."""
        tops = np.abs(values).max(axis=(1, 2, 3)).astype(np.float64)
        scales = _scale(np.where(tops > 0, tops, 1), kind)
        levels = np.rint(values / scales.astype(np.float64)[:, None, None, None]).astype(np.int8)
        self.constants.append(numpy_helper.from_array(levels, f"{name}_quantized"))
        inputs = [f"{name}_quantized", *self._parameters(name, scales)]
        return self._node("DequantizeLinear", inputs, f"{name}_dequantized", axis=0)

    def _parameters(self, name: str, scale: Floats) -> tuple[str, str]:
        self.constants.append(numpy_helper.from_array(scale, f"{name}_scale"))
        self.constants.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}_zero_point"))
        return f"{name}_scale", f"{name}_zero_point"

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes))
        return output


def _scale(top: float | Floats, kind: np.dtype[np.floating]) -> Floats:
    """The step between two levels; rounded up where its type is short, so that no value is beyond LEVELS."""
    exact = np.asarray(top, np.float64) / LEVELS
    short = exact.astype(kind)
    return np.where(short.astype(np.float64) < exact, np.nextafter(short, kind.type(np.inf)), short).astype(kind)


def _least_error(counts: NDArray[np.int64]) -> float:
    """The best share of the largest value, for magnitudes that lie so often in each step."""
    values = (np.arange(BINS) + 0.5) / BINS
    steps = _SHARES[:, None] / LEVELS
    rounded = np.minimum(np.rint(values / steps), LEVELS) * steps  # (shares, BINS)
    errors = ((rounded - values) ** 2 * counts).sum(axis=1)
    return float(_SHARES[errors.argmin()])
