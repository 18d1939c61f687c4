"""INT8 for ONNX Runtime on CPUs: unsigned activations with a zero point, signed weights per channel, as Q/DQ pairs."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from posesdk_converters.nvidia.qdq_s8 import quantizable
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.onnxruntime import import_onnxruntime

__all__ = ["quantize_onnx"]

QUANTIZED = ("Conv", "Add", "Relu", "Resize", "Concat", "MaxPool")
"""What ONNX Runtime computes in int8, or takes along between two layers that it does."""
FEWEST_CHANNELS = 4
"""Of a layer in int8. One that reads fewer, of the picture, takes three times as long in it as in float."""
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""What tells the quantizer that the shapes are known, which it would warn of."""


def quantize_onnx(source: Path, target: Path, inputs: Sequence[Tensor], *, float_layers: Sequence[str] = ()) -> None:
    """Writes the int8 form of a float32 ONNX file with one input.

    `inputs` are what the graph is fed in use, of any size that it takes. Conv nodes named in `float_layers` stay float,
    with the additions behind them. Inputs and outputs of the graph keep their names and types. Raises ValueError for a
    name that is no Conv node.
    """
    model = _prepared(onnx.load(source))
    kept = _kept(model, float_layers, source)
    scratch = target.with_name(f".new-{target.name}")
    with _quiet():
        _quantize(model, scratch, inputs, kept)
    quantized = onnx.load(scratch)
    _unquantize_ends(quantized.graph, {node.output[0] for node in model.graph.node if node.op_type == "Relu"})
    del quantized.metadata_props[:]
    del quantized.graph.value_info[:]
    onnx.save(quantized, scratch)
    os.replace(scratch, target)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph with its shapes."""
    inferred = onnx.shape_inference.infer_shapes(model)
    entry = inferred.metadata_props.add()
    entry.key, entry.value = PREPARED
    return inferred


def _kept(model: onnx.ModelProto, float_layers: Sequence[str], source: Path) -> list[str]:
    """The nodes that stay float for these layers: themselves, the additions that read them, and statistics.

    So do layers of too few channels.
    """
    graph = model.graph
    per_group = {value.name: value.dims[1] for value in graph.initializer if len(value.dims) == 4}
    layers = {node.name: node for node in graph.node if node.op_type == "Conv"}
    statistics = set(layers) - set(quantizable(model))
    if unknown := [name for name in float_layers if name not in layers]:
        raise ValueError(f"{source}: no convolution {', '.join(unknown)} in it; it has {', '.join(layers)}")
    reached = {layers[name].output[0] for name in float_layers}
    slower = statistics | {
        name
        for name, node in layers.items()
        if _groups(node) * per_group.get(node.input[1], FEWEST_CHANNELS) < FEWEST_CHANNELS
    }
    kept = [*float_layers, *sorted(slower - set(float_layers))]
    for node in graph.node:
        if node.op_type not in ("Conv", "Constant") and reached & set(node.input):
            kept.append(node.name)
            if node.op_type not in ("Add", "Concat"):
                reached.update(node.output)
    return kept


def _groups(convolution: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in convolution.attribute if attribute.name == "group"), 1)


def _quantize(model: onnx.ModelProto, target: Path, inputs: Sequence[Tensor], kept: Sequence[str]) -> None:
    import_onnxruntime()
    from onnxruntime import quantization

    quantization.quantize_static(
        model,
        target,
        _Reader(model.graph.input[0].name, inputs),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED),
        nodes_to_exclude=list(kept),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )


def _unquantize_ends(graph: onnx.GraphProto, clipped: set[str]) -> None:
    """Takes the Q/DQ pair off what no layer reads any more: maps, which would be left with 256 values.

    `clipped` tensors keep it: the quantizer took out their Relu, since levels end at 0 anyway.
    """
    writers = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        levels = writers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        source = None if levels is None else writers.get(levels.input[0])
        if levels is None or source is None or source.op_type != "Conv" or levels.input[0] in clipped:
            continue
        if any(node.output[0] in other.input for other in graph.node if other.op_type in QUANTIZED):
            continue
        graph.node.remove(levels)
        graph.node.remove(node)
        source.output[0] = node.output[0]


class _Reader:
    """What the quantizer asks for inputs, one feed at a time."""

    def __init__(self, name: str, inputs: Sequence[Tensor]) -> None:
        self._feeds = iter([{name: tensor} for tensor in inputs])

    def get_next(self) -> dict[str, Tensor] | None:
        """The next feed; None at the end."""
        return next(self._feeds, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantizer's prints off the screen, and its log from giving the root logger a handler that stays."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeHandler(handler)
