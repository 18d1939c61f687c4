"""`--target cuda`: TensorRT 10 and 11, or ONNX Runtime, on NVIDIA cards."""

from posesdk.manifest import Precision, Variant
from posesdk_converters.nvidia.platform import Platform, convert_for
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers

SUMMARY = "ONNX for TensorRT 10 and 11 or ONNX Runtime on NVIDIA cards"
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32")
FUSED: tuple[Precision, ...] = ("fp16", "fp32")

PLATFORM = Platform("cuda", opset=18, int8_opset=19, workspace_mib=2048)
"""TensorRT 10.0 reads opset 20 (its operator list); at 19 what int8 leaves can be float16."""


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes ONNX files with explicit types and the recipe of their engines; see `nvidia.platform`."""
    return convert_for(PLATFORM, conversion, precision, float_layers)
