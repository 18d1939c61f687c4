"""The float32 ONNX graphs that every bundle holds and every target starts from."""

from collections.abc import Callable
from pathlib import Path

from posesdk.manifest import Variant
from posesdk.methods import method_of
from posesdk_converters.onnx import export_adapt, export_trunk
from posesdk_converters.target import portable_variant
from posesdk_training.models.build import PoseModel

__all__ = ["export_portable"]


def export_portable(
    model: PoseModel,
    folder: Path,
    *,
    input_size: tuple[int, int] | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> Variant:
    """Writes the graphs of a model in evaluation mode into a bundle's folder; the variant that they are.

    The trunk is of `input_size` (height, width), else of the size that the model's input is fixed to, if it is. Raises
    GateError where a graph does not compute what torch does.
    """
    spec = model.spec
    variant = portable_variant(adapt=method_of(spec).needs_adapt(spec), input_size=input_size or spec.input.size)
    (folder / variant.trunk).parent.mkdir()
    step("exporting trunk")
    export_trunk(model, folder / variant.trunk, input_size=variant.input_size)
    if variant.adapt is not None:
        step("exporting adapt")
        export_adapt(model, folder / variant.adapt)
    return variant
