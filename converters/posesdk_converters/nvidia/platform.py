"""What the targets for NVIDIA devices share: float16 and int8 written out in ONNX, and the recipe of their engines.

Engines are built of these files on the device. ONNX Runtime runs the same files, and their numbers come from there.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from posesdk.manifest import NvidiaPlatform, Precision, Variant
from posesdk_converters.calibration import Feeds, record_feeds
from posesdk_converters.nvidia.activations import observe
from posesdk_converters.nvidia.fp16 import to_half, too_large
from posesdk_converters.nvidia.fused import variant_of_fused
from posesdk_converters.nvidia.opset import with_opset
from posesdk_converters.nvidia.profiles import engine_recipes
from posesdk_converters.nvidia.qdq_s8 import activation_ranges, check_quantized, quantizable, quantize
from posesdk_converters.nvidia.rtx import require_parsed, rtx_version
from posesdk_converters.onnx import relative_error
from posesdk_converters.target import Conversion, FloatLayers, Graph
from posesdk_converters.verification.parity import open_pipeline, random_images
from posesdk_converters.verification.sensitivity import layers_of
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.engines.recipe import RECIPE_NAME, write_recipes
from posesdk_runtimes.errors import GateError, SourceError

__all__ = ["Platform", "convert_for"]

SAMPLES = 4
"""Inputs that show how large the tensors of a graph get, and how far float16 is from float32."""
HALF_SCALES = 19
"""The first opset in which a quantization can have a float16 scale, and so stand among float16 tensors."""
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-5, "fp16": 0.02}
"""Largest difference of an output from the portable graph's, as `relative_error` gives it."""
_NVIDIA_NOTE = "tensorrt-rtx"


@dataclass(frozen=True)
class Platform:
    """A family of devices: the ONNX opset of its float files, that of its int8 files, scratch memory of a build."""

    name: NvidiaPlatform
    opset: int
    int8_opset: int
    workspace_mib: int


def convert_for(
    platform: Platform, conversion: Conversion, precision: Precision, float_layers: FloatLayers
) -> tuple[Variant, ...]:
    """Writes the graphs of one precision, with their recipe, into `<platform>-<precision>`.

    Where the conversion asks for it, the fused graph of a float precision stands first, to be used, and a
    detector with settings that it does not have takes the two graphs. Raises GateError for a graph that TensorRT would
    not take, SourceError for calibration images without people, ValueError for a model that cannot be fused.
    """
    folder = f"{platform.name}-{precision}"
    (conversion.folder / folder).mkdir(exist_ok=True)
    paths: dict[Graph, str] = {graph: f"{folder}/{graph}.onnx" for graph in conversion.graphs}
    recipes = engine_recipes(conversion.model.spec, conversion.portable.input_size, platform.workspace_mib)
    feeds = _feeds(conversion)
    kept: list[str] = []
    for graph, path in paths.items():
        source = onnx.load(conversion.graphs[graph])
        inputs = feeds.trunk if graph == "trunk" else feeds.adapt
        converted = _convert(source, inputs, platform, precision, float_layers.get(graph, ()))
        _check(converted, source, inputs[:SAMPLES], precision, path)
        _save(converted, conversion.folder / path)
        kept += [node.name for node in layers_of(converted)]
        require_parsed(conversion.folder / path, recipes[graph], precision)
    write_recipes(conversion.folder / folder / RECIPE_NAME, {graph: recipes[graph] for graph in paths})
    conversion.notes[_NVIDIA_NOTE] = rtx_version() or "not installed: the graphs were not parsed by NVIDIA's parser"
    variants = (_variant(platform.name, precision, paths, conversion, kept),)
    if conversion.fused and precision != "int8":
        name, opset, workspace = platform.name, platform.opset, platform.workspace_mib
        return (variant_of_fused(conversion, precision, target=name, opset=opset, workspace_mib=workspace), *variants)
    return variants


def _variant(
    platform: NvidiaPlatform,
    precision: Precision,
    paths: Mapping[Graph, str],
    conversion: Conversion,
    float_layers: Sequence[str],
) -> Variant:
    return Variant(
        name=f"{platform}-{precision}",
        runtime=("tensorrt", "onnxruntime"),
        devices=("cuda",),
        precision=precision,
        trunk=paths["trunk"],
        adapt=paths.get("adapt"),
        runtime_precision="f32",  # nothing to be changed by the runtime: the types stand in the graphs
        input_size=conversion.portable.input_size,
        float_layers=tuple(float_layers) if precision == "int8" else (),
        platform=platform,
    )


def _convert(
    source: onnx.ModelProto,
    inputs: Sequence[Tensor],
    platform: Platform,
    precision: Precision,
    float_layers: Sequence[str],
) -> onnx.ModelProto:
    """One graph in one precision."""
    opset = platform.int8_opset if precision == "int8" else platform.opset
    converted = source
    if precision == "fp16" or (precision == "int8" and opset >= HALF_SCALES):
        converted = to_half(source, single=too_large(source, inputs[:SAMPLES]))
    if precision == "int8":
        read = {name: tensor for name, tensor in quantizable(source).items() if name not in float_layers}
        tops = activation_ranges(source, tuple(read.values()), inputs)
        ranges = {name: tops[tensor] for name, tensor in read.items() if tensor in tops}
        converted = quantize(converted, ranges, _weights(source, ranges))
    return with_opset(converted, opset)


def _weights(model: onnx.ModelProto, names: Mapping[str, float]) -> dict[str, NDArray[np.floating]]:
    stored = {value.name: value for value in model.graph.initializer}
    return {node.name: numpy_helper.to_array(stored[node.input[1]]) for node in model.graph.node if node.name in names}


def _check(
    model: onnx.ModelProto, source: onnx.ModelProto, inputs: Sequence[Tensor], precision: Precision, path: str
) -> None:
    """Raises GateError for a graph that is not valid, that TensorRT refuses, or that is far from the portable one."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"{path} is not valid ONNX: {error}; use the pinned version of onnx") from error
    check_quantized(model, path)
    names = [value.name for value in source.graph.output]
    for found, wanted in zip(observe(model, names, inputs), observe(source, names, inputs), strict=True):
        for name in names:
            distance, most = relative_error(found[name], wanted[name]), TOLERANCES.get(precision)
            if most is not None and not distance <= most:
                raise GateError(
                    f"{path}, output {name}: {distance:.2g} from the portable graph, {most:g} is allowed; "
                    f"convert without {precision}"
                )


def _save(model: onnx.ModelProto, path: Path) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(scratch, path)


def _feeds(conversion: Conversion) -> Feeds:
    """The calibration inputs; without any, what random pictures give, which is enough for the size of numbers."""
    if conversion.feeds is not None:
        if conversion.portable.adapt is not None and not any(map(len, conversion.feeds.adapt)):
            raise SourceError("calibration: the model finds nobody in these images; give images with people in them")
        return conversion.feeds
    spec = conversion.model.spec
    with open_pipeline(spec, conversion.folder, conversion.portable, "onnxruntime") as pipeline:
        return record_feeds(pipeline, random_images(spec, SAMPLES))
