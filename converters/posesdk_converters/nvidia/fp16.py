"""Explicit float16: a float32 graph in which every tensor has the type that it is to be computed in.

TensorRT 11 knows no precision flags: a graph runs in the types that stand in it. Convolutions, products with stored
matrices and what lies between them become float16. The normalisation of images, layer and attentive norms and the last
layers stay float32, and so do inputs and outputs.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from posesdk_converters.nvidia.activations import magnitudes
from posesdk_runtimes.base import Tensor

__all__ = ["LARGEST_SAFE", "last_layers_of", "statistics_of", "to_half", "too_large"]

LARGEST_SAFE = float(np.finfo(np.float16).max) / 8
"""Magnitude from which a tensor stays float32: other pictures may give several times what these gave."""

_LAYERS = ("Conv", "Gemm", "MatMul")
_MAY_BE_HALF = (*_LAYERS, "Relu", "Add", "Resize", "Concat", "MaxPool", "Transpose")
_STATISTICS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
"""Means over a window, and what is computed of them alone: a few numbers that decide about a whole person."""
_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def too_large(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> frozenset[str]:
    """The tensors that, on these inputs, come too near to the end of float16's range."""
    names = [
        name for node in model.graph.node if node.op_type in _MAY_BE_HALF for name in (node.input[0], *node.output)
    ]
    found = magnitudes(model, tuple(dict.fromkeys(names)), inputs)
    return frozenset(name for name, top in found.items() if not top <= LARGEST_SAFE)


def to_half(model: onnx.ModelProto, *, single: Collection[str] = ()) -> onnx.ModelProto:
    """A copy whose layers run in float16, those that touch a tensor named in `single` excepted.

    Names of nodes, inputs and outputs stay.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    _Rewriting(half.graph, _half_outputs(model, frozenset(single))).run()
    return half


class _Rewriting:
    """One graph on its way: the nodes that run in float16, and the casts where the types meet."""

    def __init__(self, graph: onnx.GraphProto, half: frozenset[str]) -> None:
        self.graph = graph
        self.half = half
        self.weights = {value.name: value for value in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.copies: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        for node in self.graph.node:
            self._inputs(node)
            self.nodes.append(node)
            for index, name in enumerate(node.output):
                if name in self.half and name in self.outputs:
                    node.output[index] = f"{name}_half"
                    self._cast(node.output[index], _SINGLE, name)
                    self.casts[name, _HALF], self.casts[name, _SINGLE] = node.output[index], name
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [value for value in (*self.graph.initializer, *self.copies.values()) if value.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _inputs(self, node: onnx.NodeProto) -> None:
        wanted = _HALF if node.output[0] in self.half else _SINGLE
        for index in _tensors(node):
            name = node.input[index]
            if name in self.weights:
                if wanted == _HALF:
                    node.input[index] = self._half_weight(name)
            elif (name, wanted) in self.casts:
                node.input[index] = self.casts[name, wanted]
            elif (name in self.half) != (wanted == _HALF) and node.op_type != "Cast":
                node.input[index] = self._cast(name, wanted, f"{name}_{'half' if wanted == _HALF else 'single'}")

    def _cast(self, name: str, kind: int, result: str) -> str:
        self.nodes.append(helper.make_node("Cast", [name], [result], name=f"cast_{result}", to=kind))
        self.casts[name, kind] = result
        return result

    def _half_weight(self, name: str) -> str:
        if name not in self.copies:
            values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
            self.copies[name] = numpy_helper.from_array(values, f"{name}_half")
        return self.copies[name].name


def _tensors(node: onnx.NodeProto) -> range:
    """The inputs that are computed with; the scales of a Resize are float32 always."""
    return range(1) if node.op_type == "Resize" else range(len(node.input))


def statistics_of(model: onnx.ModelProto) -> frozenset[str]:
    """The means over whole windows, and the tensors that are computed of them alone."""
    stored = {value.name for value in model.graph.initializer}
    found: set[str] = set()
    for node in model.graph.node:
        computed = [name for name in node.input if name and name not in stored]
        if node.op_type in _STATISTICS or (computed and found.issuperset(computed)):
            found.update(node.output)
    return frozenset(found)


def last_layers_of(model: onnx.ModelProto) -> frozenset[str]:
    """Outputs of the layers that no rounded operator follows: what they give becomes a coordinate or a score."""
    stored = frozenset(value.name for value in model.graph.initializer)
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for value in model.graph.output:
        node = producers[value.name]
        while (node.op_type not in _MAY_BE_HALF or _adds_bias(node, stored)) and node.input[0] in producers:
            node = producers[node.input[0]]
        if node.op_type in _LAYERS:
            found.append(node.output[0])
    return frozenset(found)


def _adds_bias(node: onnx.NodeProto, stored: frozenset[str]) -> bool:
    return node.op_type == "Add" and not stored.isdisjoint(node.input)


def _half_outputs(model: onnx.ModelProto, single: frozenset[str]) -> frozenset[str]:
    """The names of the tensors that come out in float16."""
    weights = {value.name: value for value in model.graph.initializer}
    exact = single | statistics_of(model) | last_layers_of(model)
    half: set[str] = set()
    for node in model.graph.node:
        computed = [node.input[index] for index in _tensors(node) if node.input[index] not in weights]
        if node.op_type not in _MAY_BE_HALF or not exact.isdisjoint(node.output) or not single.isdisjoint(computed):
            continue
        constants = [weights[node.input[index]] for index in _tensors(node) if node.input[index] in weights]
        layer = node.op_type == "Conv" or (node.op_type in _LAYERS and bool(constants))
        if (layer or half.issuperset(computed)) and all(map(_fits, constants)):
            half.update(node.output)
    return frozenset(half)


def _fits(weight: onnx.TensorProto) -> bool:
    return bool(np.abs(numpy_helper.to_array(weight)).max(initial=0) <= LARGEST_SAFE)
