"""`--target cpu`: OpenVINO IR for CPUs, beside the portable graphs."""

from pathlib import Path

from posesdk.manifest import Precision, Variant
from posesdk_converters.target import ALL_QUANTIZED, Conversion, FloatLayers
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.openvino import shared_core

SUMMARY = "OpenVINO IR for x86 and Arm CPUs"
PRECISIONS: tuple[Precision, ...] = ("fp32",)


def convert(
    conversion: Conversion, precision: Precision, *, float_layers: FloatLayers = ALL_QUANTIZED
) -> tuple[Variant, ...]:
    """Writes each graph as .xml and .bin in float32, to be run in float32."""
    portable = conversion.portable
    folder = "cpu-fp32"
    (conversion.folder / folder).mkdir()
    graphs = {"trunk": portable.trunk, "adapt": portable.adapt}
    paths = {name: f"{folder}/{name}.xml" for name, source in graphs.items() if source is not None}
    for name, path in paths.items():
        _to_ir(conversion.folder / str(graphs[name]), conversion.folder / path)
    variant = Variant(
        name=folder,
        runtime=("openvino",),
        devices=("cpu",),
        precision="fp32",
        trunk=paths["trunk"],
        adapt=paths.get("adapt"),
        # Named, since OpenVINO's default on a CPU with bfloat16 moves keypoints by whole pixels.
        runtime_precision="f32",
        input_size=portable.input_size,
    )
    return (variant,)


def _to_ir(source: Path, target: Path) -> None:
    try:
        core = shared_core()
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            f"converting {source.name} for target cpu: OpenVINO cannot be imported ({error}); "
            "install it with `pip install 'posesdk[convert]'`"
        ) from error
    openvino.save_model(core.read_model(source), target, compress_to_fp16=False)
