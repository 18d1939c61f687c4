"""`--target onnx`: the portable graphs alone, for ONNX Runtime or OpenVINO."""

from posesdk.manifest import Precision, Variant
from posesdk_converters.target import Conversion

SUMMARY = "portable ONNX, for ONNX Runtime or OpenVINO"
PRECISIONS: tuple[Precision, ...] = ("fp32",)


def convert(conversion: Conversion) -> tuple[Variant, ...]:
    """Adds nothing: every bundle holds the portable graphs."""
    return ()
