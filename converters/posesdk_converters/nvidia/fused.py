"""Export of the fused graph, one ONNX file from the image to the adapted keypoints, and the checks that it passes.

In float16 everything from the last layers of the network on stays float32: what is a coordinate, a kernel, a response.
"""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.export import Dim

from posesdk.manifest import NvidiaPlatform, Precision, Variant
from posesdk.pipeline import settled
from posesdk.preprocess import make_letterbox
from posesdk.spec import ModelSpec
from posesdk_converters.golden import golden_image
from posesdk_converters.nvidia.fp16 import to_half, too_large
from posesdk_converters.nvidia.fused_graph import Fused, check_fusible
from posesdk_converters.nvidia.opset import with_opset
from posesdk_converters.nvidia.profiles import engine_recipes
from posesdk_converters.nvidia.rtx import require_parsed
from posesdk_converters.onnx import MAX_SIDE, Size, check_graph, export_graph
from posesdk_converters.target import Conversion
from posesdk_converters.verification.parity import FRACTION, TOLERANCE, Parity, Reference, open_pipeline, random_images
from posesdk_runtimes.engines.recipe import RECIPE_NAME, GraphRecipe, ShapeRange, write_recipes
from posesdk_runtimes.errors import GateError
from posesdk_training.models.logocap import LogoCap

__all__ = ["FUSED_NAMES", "compare_fused", "export_fused", "variant_of_fused"]

FUSED_NAMES = ("image", "keypoints", "keypoint_scores", "center_scores")
"""The input, then the outputs."""
PEOPLE = 30
SCORE_TOLERANCE = 1e-4
HALF_FRACTION = 0.5
"""Share of the keypoints that has to be within TOLERANCE in float16, measured 0.94 to 0.96; the rest is for the AP."""
RANDOM_IMAGES = 1

Image = NDArray[np.uint8]


def export_fused(
    model: LogoCap,
    path: str | os.PathLike[str],
    *,
    people: int = PEOPLE,
    input_size: Size | None = None,
    half: bool = False,
) -> Parity:
    """Writes the fused graph for `people` candidates and compares it on ONNX Runtime with torch and the numpy decoder.

    `input_size` (height, width) fixes the size, else it is free in multiples of the specification's. With `half` the
    convolutions are float16. Raises ValueError for a model or a size that cannot be exported so, GateError where the
    graph does not find the model's poses.
    """
    multiple = model.spec.input.multiple
    if input_size is not None and any(side <= 0 or side % multiple for side in input_size):
        raise ValueError(f"input size {input_size[0]}x{input_size[1]} is not a multiple of {multiple}")
    size, shapes = input_size or (2 * multiple, 3 * multiple), {}
    if input_size is None:
        most = MAX_SIDE // multiple
        shapes = {1: multiple * Dim("rows", min=1, max=most), 2: multiple * Dim("columns", min=1, max=most)}
    example = torch.zeros(1, *size, 3, dtype=torch.uint8)
    graph = Fused(model, people)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        scratch = Path(folder) / "fused.onnx"
        export_graph(graph, example, scratch, names=FUSED_NAMES, shapes=shapes)
        if half:
            spec = settled(model.spec, model.spec.decode, input_size)
            onnx.save(_halved(onnx.load(scratch), model, spec), scratch)
            check_graph(scratch)
        parity = compare_fused(model, scratch, people=people, input_size=input_size, half=half)
        os.replace(scratch, path)
    return parity


def compare_fused(
    model: LogoCap, path: Path, *, people: int, input_size: Size | None = None, half: bool = False
) -> Parity:
    """How the poses of a fused graph on ONNX Runtime compare with the torch model's through the numpy decoder.

    Keypoints between two responses that rounding alone makes change places are left out, as in every parity check.
    Raises GateError where the others are too far away; of float16, fewer have to be near.
    """
    decode = model.spec.decode.model_copy(update={"max_people": min(people, model.spec.decode.max_people)})
    spec = settled(model.spec, decode, input_size)
    reference = Reference(model, _pictures(spec), spec=spec)
    variant = Variant(name="fused", runtime=("onnxruntime",), trunk=path.name, graphs="fused", input_size=input_size)
    with open_pipeline(reference.spec, path.parent, variant, "onnxruntime") as pipeline:
        parity = reference.compare(pipeline, "fused", "onnxruntime")
    share = HALF_FRACTION if half else FRACTION
    if parity.within < share or (not half and parity.max_score > SCORE_TOLERANCE):
        raise GateError(
            f"fused graph of {model.spec.name}{' in float16' if half else ''}: {parity.within:.2%} of "
            f"{parity.keypoints} keypoints are within {TOLERANCE} px of the torch model's, {share:.1%} are needed, "
            f"scores differ by {parity.max_score:.2g}; use the pinned version of torch, or leave out the fused graph"
        )
    return parity


def variant_of_fused(
    conversion: Conversion, precision: Precision, *, target: NvidiaPlatform, opset: int, workspace_mib: int
) -> Variant:
    """Writes `<target>-<precision>-fused/fused.onnx` with its recipe; fp32 or fp16, of the portable graphs' input size.

    Raises ValueError for another precision and for a model that cannot be fused, GateError as `export_fused` does and
    where TensorRT-RTX is installed and does not take the graph.
    """
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"a fused graph is made in fp32 and fp16, not in {precision}")
    model, size = conversion.model, conversion.portable.input_size
    spec = model.spec
    check_fusible(spec)
    assert isinstance(model, LogoCap)  # all others are refused
    name = f"{target}-{precision}-fused"
    folder = conversion.folder / name
    folder.mkdir(exist_ok=True)
    path = folder / "fused.onnx"
    export_fused(model, path, people=spec.decode.max_people, input_size=size, half=precision == "fp16")
    path.write_bytes(with_opset(onnx.load(path), opset).SerializeToString(deterministic=True))
    recipe = _recipe(spec, size, workspace_mib)
    require_parsed(path, recipe, precision)
    write_recipes(folder / RECIPE_NAME, {"fused": recipe})
    return Variant(
        name=name,
        runtime=("tensorrt", "onnxruntime"),
        devices=("cuda",),
        precision=precision,
        trunk=f"{name}/{path.name}",
        runtime_precision="f32",  # nothing to be changed by the runtime: the types stand in the graph
        input_size=size,
        graphs="fused",
        platform=target,
    )


def _recipe(spec: ModelSpec, size: Size | None, workspace_mib: int) -> GraphRecipe:
    if size is not None:
        return GraphRecipe(workspace_mib=workspace_mib)
    trunk = engine_recipes(spec, size, workspace_mib)["trunk"].profiles["image"]
    image = ShapeRange(*((1, *shape[1:]) for shape in (trunk.min, trunk.opt, trunk.max)))
    return GraphRecipe({"image": image}, workspace_mib=workspace_mib)


def _halved(graph: onnx.ModelProto, model: LogoCap, spec: ModelSpec) -> onnx.ModelProto:
    """The graph with its convolutions in float16, but for the last layers, the dynamic one, those of large values."""
    images = [make_letterbox(image.shape[:2], spec.input, spec.frame).warp(image)[None] for image in _pictures(spec)]
    exact = _exact(graph, len(model.joints_mlp) - 1)
    return to_half(graph, single={*exact, *too_large(graph, images)})


def _exact(model: onnx.ModelProto, last_layer: int) -> Collection[str]:
    """Outputs of the convolutions that stay float32."""
    stored = {value.name for value in model.graph.initializer}
    kept = ("trunk.model.final_layer_", f"adapt.joints_mlp.{last_layer}.")
    return [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Conv" and (node.input[1] not in stored or node.input[1].startswith(kept))
    ]


def _pictures(spec: ModelSpec) -> list[Image]:
    """Rendered people and random blocks."""
    return [golden_image(None), *random_images(spec, RANDOM_IMAGES)]
