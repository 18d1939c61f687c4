"""`--target mobile`: TFLite for phones and small boards, beside the portable graphs."""

import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from posesdk.manifest import Precision, Variant
from posesdk.spec import InputSpec
from posesdk_converters.products import float_reason, has_convolutions
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers, Graph
from posesdk_converters.tflite.graph import read_operators
from posesdk_converters.tflite.layers import float_operators, match_convolutions
from posesdk_converters.tflite.quantize import Ranges, observe_ranges, quantize, round_weights, store_float16
from posesdk_runtimes.base import Tensor

SUMMARY = "TFLite for Android, iOS and small boards, of one input size"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TOOLS = ("litert-torch", "ai-edge-quantizer")


@dataclass
class _Made:
    """What every precision of one conversion starts from."""

    graphs: dict[Graph, bytes] = field(default_factory=dict)
    ranges: dict[Graph, Ranges] = field(default_factory=dict)


_made: WeakKeyDictionary[Conversion, _Made] = WeakKeyDictionary()
"""litert-torch takes half a minute for a model, and int8 may be made again and again with more layers in float."""


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes each graph as .tflite: float32, float32 with weights stored as float16, or int8 with float in and out.

    TFLite fixes the size of an image: without `input_size` it is the square that takes an image of either orientation
    at the float model's scale. Raises ValueError for int8 without calibration inputs and for a layer that the graphs do
    not have, MissingDependencyError without litert-torch.
    """
    if precision == "int8":
        conversion.int8_feeds("mobile")  # before litert-torch, which takes seconds
    portable = conversion.portable
    size = conversion.input_size or portable.input_size or square(conversion.model.spec.input)
    name = f"mobile-{precision}"
    kept: list[str] = []
    made = _made.setdefault(conversion, _Made())
    paths: dict[Graph, str] = {}
    for graph in conversion.graphs:
        content = _float_graph(conversion, made, graph, size)
        if precision == "fp16":
            content = store_float16(content)
        elif precision == "int8":
            layers, content = _int8(conversion, made, graph, size, float_layers.get(graph, ()))
            kept += layers
        paths[graph] = f"{name}/{graph}.tflite"
        _write(conversion.folder / paths[graph], content)
    conversion.notes.update({tool: importlib.metadata.version(tool) for tool in TOOLS})
    variant = Variant(
        name=name,
        runtime=("tflite",),
        devices=("cpu",),
        precision=precision,
        trunk=paths["trunk"],
        adapt=paths.get("adapt"),
        input_size=size,
        float_layers=tuple(kept),
    )
    return (variant,)


def square(source: InputSpec) -> tuple[int, int]:
    """(height, width) of a fixed input for images of either orientation."""
    side = -(-source.side // source.multiple) * source.multiple
    return source.size or (side, side)


def _float_graph(conversion: Conversion, made: _Made, graph: Graph, size: tuple[int, int]) -> bytes:
    if graph not in made.graphs:
        from posesdk_converters.tflite.convert import convert_adapt, convert_trunk  # loading torch takes seconds

        model = conversion.model
        made.graphs[graph] = convert_trunk(model, size) if graph == "trunk" else convert_adapt(model)
    return made.graphs[graph]


def _int8(
    conversion: Conversion, made: _Made, graph: Graph, size: tuple[int, int], float_layers: Sequence[str]
) -> tuple[list[str], bytes]:
    """The names in the portable graph of all convolutions that are float, and the quantized graph."""
    inputs = conversion.int8_feeds("mobile")[graph]
    content = made.graphs[graph]
    if not has_convolutions(conversion.graphs[graph]):
        return [], round_weights(content)
    operators = read_operators(content)
    convolutions = match_convolutions(operators, conversion.graphs[graph])
    if unknown := [layer for layer in float_layers if layer not in convolutions]:
        raise ValueError(f"no convolution {', '.join(unknown)} in {graph}; known: {', '.join(convolutions)}")
    if reason := float_reason(conversion, graph):
        conversion.notes["mobile-int8"] = reason
        return list(convolutions), content
    if graph not in made.ranges:
        made.ranges[graph] = observe_ranges(content, _inputs(inputs, graph, size))
    kept = {*float_operators(operators), *(convolutions[layer] for layer in float_layers)}
    quantized = quantize(content, made.ranges[graph], [entry.name for entry in operators if entry.name in kept])
    return [layer for layer, own in convolutions.items() if own in kept], quantized


def _inputs(feeds: Sequence[Tensor], graph: Graph, size: tuple[int, int]) -> Iterator[Tensor]:
    """The images at the size of the file, or the contexts of one person after the other."""
    if graph == "trunk":
        return (_fit(image[0], size)[None] for image in feeds)
    return (context[None] for contexts in feeds for context in contexts)


def _fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (H, W, 3), shrunk if it is too large, in the middle of a black one of `size`."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1], 1.0)
    if scale < 1:
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    fitted = np.zeros((*size, 3), np.uint8)
    top, left = ((whole - part) // 2 for whole, part in zip(size, image.shape, strict=False))
    fitted[top : top + image.shape[0], left : left + image.shape[1]] = image
    return fitted


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_name(f".new-{path.name}")
    scratch.write_bytes(content)
    os.replace(scratch, path)
