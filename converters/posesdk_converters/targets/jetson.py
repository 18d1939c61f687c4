"""`--target jetson`: TensorRT 8.6 and 10 as JetPack 6 and 7 bring it."""

from posesdk.manifest import Precision, Variant
from posesdk_converters.nvidia.platform import Platform, convert_for
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers

SUMMARY = "ONNX for TensorRT on Jetson, JetPack 6 and 7"
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32")
FUSED: tuple[Precision, ...] = ("fp16", "fp32")

PLATFORM = Platform("jetson", opset=17, int8_opset=17, workspace_mib=1024)
"""TensorRT 8.6 reads opset 17 at most (its list of operators). Scales are float32 there, and what int8 leaves over
is float32, too."""


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes ONNX files with explicit types and the recipe of their engines; see `nvidia.platform`."""
    return convert_for(PLATFORM, conversion, precision, float_layers)
