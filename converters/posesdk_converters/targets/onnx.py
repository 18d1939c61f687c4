"""`--target onnx`: the portable graphs, and int8 graphs for ONNX Runtime on CPUs."""

import onnx

from posesdk.manifest import Precision, Variant
from posesdk_converters.onnx_int8 import quantize_onnx
from posesdk_converters.products import float_reason
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers, Graph
from posesdk_converters.verification.sensitivity import layers_of
from posesdk_runtimes.onnxruntime import import_onnxruntime

SUMMARY = "portable ONNX, for ONNX Runtime or OpenVINO"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Adds nothing for fp32, since every bundle holds the portable graphs; writes each of them anew for int8.

    Raises ValueError for int8 without calibration inputs and for a layer that the graphs do not have.
    """
    if precision == "fp32":
        return ()
    inputs, portable = conversion.int8_feeds("onnx"), conversion.portable
    name = "onnx-int8"
    (conversion.folder / name).mkdir(exist_ok=True)
    paths: dict[Graph, str] = {}
    for graph, source in conversion.graphs.items():
        if reason := float_reason(conversion, graph):
            paths[graph] = source.relative_to(conversion.folder).as_posix()
            conversion.notes[name] = reason
            continue
        paths[graph] = f"{name}/{graph}.onnx"
        kept = float_layers.get(graph, ())
        quantize_onnx(source, conversion.folder / paths[graph], inputs[graph], float_layers=kept)
    conversion.notes["onnxruntime"] = import_onnxruntime().__version__
    variant = Variant(
        name=name,
        runtime=("onnxruntime",),
        devices=("cpu",),
        precision="int8",
        trunk=paths["trunk"],
        adapt=paths.get("adapt"),
        runtime_precision="f32",
        input_size=portable.input_size,
        float_layers=tuple(
            node.name for path in paths.values() for node in layers_of(onnx.load(conversion.folder / path))
        ),
    )
    return (variant,)
