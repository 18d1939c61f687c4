"""`--target jetson`: TensorRT 8.5 to 10 as JetPack 5, 6 and 7 bring it."""

from posesdk.manifest import Precision, Variant
from posesdk_converters.nvidia import Platform, convert_for
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers

SUMMARY = "ONNX for TensorRT on Jetson, JetPack 5 to 7"
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32")

PLATFORM = Platform("jetson", opset=17, int8_opset=17, workspace_mib=1024)
"""TensorRT 8.5 and 8.6 read opset 17 at most (their operator lists). Scales are float32 there, and what int8 leaves
stays float32, too."""


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes ONNX files with explicit types and the recipe of their engines; see `posesdk_converters.nvidia`."""
    return convert_for(PLATFORM, conversion, precision, float_layers)
