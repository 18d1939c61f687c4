"""`--target onnx`: the portable graphs alone, for ONNX Runtime or OpenVINO."""

from posesdk.manifest import Precision, Variant
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers

SUMMARY = "portable ONNX, for ONNX Runtime or OpenVINO"
PRECISIONS: tuple[Precision, ...] = ("fp32",)


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Adds nothing: every bundle holds the portable graphs."""
    return ()
