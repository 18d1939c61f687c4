"""`--target cpu`: OpenVINO IR for CPUs, beside the portable graphs."""

from collections.abc import Sequence
from typing import Any, Literal

from posesdk.manifest import Precision, Variant
from posesdk_converters.nncf_int8 import import_nncf, quantize, round_weights
from posesdk_converters.openvino_ir import find_layers, float_convolutions, read_graph, save_ir
from posesdk_converters.openvino_layout import fold_output_scales, hand_out_maps, spread_normalisation
from posesdk_converters.products import float_reason, has_convolutions
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers, Graph
from posesdk_runtimes.openvino import import_openvino

SUMMARY = "OpenVINO IR for x86 and Arm CPUs"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")

Arithmetic = Literal["f32", "bf16"]
ARITHMETIC: dict[Precision, Arithmetic] = {"bf16": "bf16"}
"""What is not f32. Named for every variant, since OpenVINO's default on a CPU with bfloat16 moves keypoints."""


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes each graph as .xml and .bin: float32, float32 stored as float16, or int8; bf16 is float32 run in bfloat16.

    Raises ValueError for int8 without calibration inputs and for a layer that the graphs do not have.
    """
    portable = conversion.portable
    name = f"cpu-{precision}"
    (conversion.folder / name).mkdir(exist_ok=True)
    paths: dict[Graph, str] = {graph: f"{name}/{graph}.xml" for graph in conversion.graphs}
    kept: list[str] = []
    for graph, source in conversion.graphs.items():
        model = read_graph(source)
        fold_output_scales(model)
        normalising = spread_normalisation(model)
        if precision == "int8":
            layers = find_layers(model, source, float_layers.get(graph, ()))
            model = _quantized(conversion, graph, model, [*layers, *normalising])
            kept += float_convolutions(model, source)
        if graph == "trunk" and portable.input_size is not None:
            # One picture at a time, so that no dimension is free: OpenVINO then leaves out copies of the maps.
            model.reshape([1, *portable.input_size, 3])
        hand_out_maps(model)
        save_ir(model, conversion.folder / paths[graph], half=precision == "fp16")
    conversion.notes["openvino"] = import_openvino().__version__
    variant = Variant(
        name=name,
        runtime=("openvino",),
        devices=("cpu",),
        precision=precision,
        trunk=paths["trunk"],
        adapt=paths.get("adapt"),
        runtime_precision=ARITHMETIC.get(precision, "f32"),
        input_size=portable.input_size,
        float_layers=tuple(kept),
    )
    return (variant,)


def _quantized(conversion: Conversion, graph: Graph, model: Any, float_layers: Sequence[str]) -> Any:
    inputs = conversion.int8_feeds("cpu")[graph]
    calibrated = has_convolutions(conversion.graphs[graph])
    if calibrated and (reason := float_reason(conversion, graph)):
        conversion.notes["cpu-int8"] = reason
        return model
    conversion.notes["nncf"] = import_nncf().__version__
    return quantize(model, inputs, float_layers=float_layers) if calibrated else round_weights(model)
