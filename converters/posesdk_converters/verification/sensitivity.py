"""Which layers lose most by int8: each one is quantized alone, and the error of the graph's outputs is measured."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posesdk_converters.calibration import Feeds
from posesdk_converters.target import FloatLayers, Graph
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.registry import open_runtime

__all__ = ["LayerError", "layers_of", "most_sensitive", "rank_layers"]

IMAGES = 8
"""Sets of inputs that each layer is measured on; the order of the first layers settles with few."""
LEVELS = 255
WEIGHT_LEVELS = 127


@dataclass(frozen=True)
class LayerError:
    """A layer, the name of its weights, and the error of the graph's outputs while it alone computes in int8.

    The error is the root mean square, as a share of that of the outputs, averaged over them.
    """

    graph: Graph
    layer: str
    weight: str
    error: float


def rank_layers(graphs: Mapping[Graph, Path], feeds: Feeds, *, step: Callable[[str], None]) -> tuple[LayerError, ...]:
    """Every convolution of the portable graphs, the most sensitive first; `step` is told what is being done."""
    inputs: dict[Graph, Sequence[Tensor]] = {"trunk": feeds.trunk, "adapt": feeds.adapt}
    found = [
        error
        for graph, path in graphs.items()
        if inputs[graph]
        for error in _measure(graph, path, _spread(inputs[graph]), step)
    ]
    return tuple(sorted(found, key=lambda entry: (-entry.error, entry.graph, entry.layer)))


def most_sensitive(ranking: Sequence[LayerError], count: int) -> FloatLayers:
    """The first `count` layers of a ranking, by graph."""
    chosen = ranking[:count]
    graphs: tuple[Graph, ...] = ("trunk", "adapt")
    return {graph: names for graph in graphs if (names := tuple(e.layer for e in chosen if e.graph == graph))}


def layers_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that int8 is about: convolutions with weights of their own, in the order of the graph."""
    weights = {value.name for value in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights]


def _spread(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [inputs[index] for index in np.linspace(0, len(inputs) - 1, min(IMAGES, len(inputs))).astype(int)]


def _measure(graph: Graph, path: Path, inputs: Sequence[Tensor], step: Callable[[str], None]) -> Iterator[LayerError]:
    model = onnx.load(path)
    layers = layers_of(model)
    name = model.graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "graph.onnx"
        wanted = _run(model, scratch, name, inputs)
        ranges = _input_ranges(model, layers, scratch, inputs)
        for index, layer in enumerate(layers):
            step(f"measuring layer {index + 1} of {len(layers)} of {graph} in int8")
            found = _run(_with_int8_layer(model, layer.name, ranges[layer.input[0]]), scratch, name, inputs)
            yield LayerError(graph, layer.name, layer.input[1], _relative_error(found, wanted))


def _run(model: onnx.ModelProto, scratch: Path, name: str, inputs: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    onnx.save(model, scratch)
    runtime = open_runtime(scratch, runtime="onnxruntime")
    try:
        return [runtime.run({name: value}) for value in inputs]
    finally:
        runtime.close()


def _input_ranges(
    model: onnx.ModelProto, layers: Sequence[onnx.NodeProto], scratch: Path, inputs: Sequence[Tensor]
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of what each layer reads."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    read = dict.fromkeys(layer.input[0] for layer in layers)
    graph_input = model.graph.input[0].name
    for name in read:
        if name not in outputs and name != graph_input:
            watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    found = _run(watched, scratch, graph_input, inputs)
    for values, given in zip(found, inputs, strict=True):
        values[graph_input] = given
    return {name: (min(f[name].min() for f in found), max(f[name].max() for f in found)) for name in read}


def _with_int8_layer(model: onnx.ModelProto, layer: str, span: tuple[float, float]) -> onnx.ModelProto:
    """The model with one layer's weights rounded per output channel, and what it reads rounded to 256 levels."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    index, node = next((i, node) for i, node in enumerate(graph.node) if node.name == layer)
    weight = next(value for value in graph.initializer if value.name == node.input[1])
    rounded = numpy_helper.from_array(_round_weights(numpy_helper.to_array(weight)), f"{layer}_rounded")
    low, high = min(float(span[0]), 0.0), max(float(span[1]), 0.0)
    scale = max((high - low) / LEVELS, 1e-12)
    zero = round(-low / scale)
    graph.initializer.extend(
        [
            rounded,
            numpy_helper.from_array(np.array(scale, np.float32), f"{layer}_scale"),
            numpy_helper.from_array(np.array(zero, np.uint8), f"{layer}_zero"),
        ]
    )
    names = [f"{layer}_scale", f"{layer}_zero"]
    quantize = helper.make_node("QuantizeLinear", [node.input[0], *names], [f"{layer}_levels"])
    dequantize = helper.make_node("DequantizeLinear", [f"{layer}_levels", *names], [f"{layer}_values"])
    node.input[0], node.input[1] = f"{layer}_values", rounded.name
    graph.node.insert(index, dequantize)
    graph.node.insert(index, quantize)
    return changed


def _round_weights(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.maximum(largest, 1e-12) / WEIGHT_LEVELS
    return np.asarray(np.round(weight / scale) * scale, np.float32)


def _relative_error(found: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]]) -> float:
    shares = []
    for name in wanted[0]:
        error = sum(float(np.square(f[name] - w[name]).sum()) for f, w in zip(found, wanted, strict=True))
        size = sum(float(np.square(w[name]).sum()) for w in wanted)
        shares.append((error / max(size, 1e-12)) ** 0.5)
    return float(np.mean(shares))
