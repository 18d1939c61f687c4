"""Export of the two graphs of a model, `trunk` and `adapt`, to ONNX, and the checks that every export passes.

The forms used here are those that every later converter takes: the uint8 input goes into a Cast first, normalisation is
inside, the number of images and of persons is free.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from posesdk.methods import method_of, trunk_outputs
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import GateError
from posesdk_runtimes.registry import open_runtime
from posesdk_training.models.build import PoseModel
from posesdk_training.models.graphs import Adapt, Trunk

__all__ = [
    "OPSET",
    "PERSON_COUNTS",
    "adapt_names",
    "check_graph",
    "compare_adapt",
    "compare_trunk",
    "export_adapt",
    "export_graph",
    "export_trunk",
    "random_contexts",
    "relative_error",
]

OPSET = 18
"""The exporter's native floor; every runtime of the SDK reads it."""
TOLERANCE = 1e-4
"""Largest difference from torch, absolute for outputs of up to 1, else as a share of the output's largest magnitude."""
PERSON_COUNTS = (1, 2, 5, 30)
MAX_BATCH = 64
MAX_PERSONS = 1024
MAX_SIDE = 8192
"""Bounds of the dynamic dimensions, written nowhere into the graph."""
Size = tuple[int, int]


def export_trunk(model: PoseModel, path: str | os.PathLike[str], *, input_size: Size | None = None) -> None:
    """Writes `trunk` and checks it against torch; `input_size` (height, width) fixes the size, else it is free.

    A free size is a multiple of the specification's. Raises GateError where the graph does not equal the model.
    """
    multiple = model.spec.input.multiple
    if input_size is not None and any(side <= 0 or side % multiple for side in input_size):
        raise ValueError(f"input size {input_size[0]}x{input_size[1]} is not a multiple of {multiple}")
    shapes = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if input_size is None:
        most = MAX_SIDE // multiple
        shapes |= {1: multiple * Dim("rows", min=1, max=most), 2: multiple * Dim("columns", min=1, max=most)}
    example = _images(2, _sizes(model, input_size)[0])
    export_graph(Trunk(model), example, path, names=_trunk_names(model.spec), shapes=shapes)
    compare_trunk(model, path, input_size=input_size)


def export_adapt(model: PoseModel, path: str | os.PathLike[str]) -> None:
    """Writes `adapt`, free in the number of persons, and checks it against torch at each of PERSON_COUNTS.

    Raises GateError where the graph does not equal the model.
    """
    spec = model.spec
    if not method_of(spec).needs_adapt(spec):
        raise ValueError(
            f"model {spec.name}: its method {spec.method!r} is set to use no adapt graph, so there is none"
        )
    shapes = {0: Dim("persons", min=1, max=MAX_PERSONS)}
    export_graph(Adapt(model), random_contexts(spec, PERSON_COUNTS[1]), path, names=adapt_names(spec), shapes=shapes)
    compare_adapt(model, path)


def compare_trunk(model: PoseModel, path: str | os.PathLike[str], *, input_size: Size | None = None) -> None:
    """Raises GateError where a graph on ONNX Runtime does not equal the model's trunk, for one and two images."""
    images = [_images(count, size) for size in _sizes(model, input_size) for count in (1, 2)]
    _compare(Trunk(model), path, images, names=_trunk_names(model.spec))


def compare_adapt(model: PoseModel, path: str | os.PathLike[str]) -> None:
    """Raises GateError where a graph on ONNX Runtime does not equal the model's adapt, at each of PERSON_COUNTS."""
    contexts = [random_contexts(model.spec, count) for count in PERSON_COUNTS]
    _compare(Adapt(model), path, contexts, names=adapt_names(model.spec))


def _trunk_names(spec: ModelSpec) -> tuple[str, ...]:
    """The input of the trunk, then its outputs."""
    return ("image", *trunk_outputs(spec))


def adapt_names(spec: ModelSpec) -> tuple[str, ...]:
    """The input of the adapt graph, then its outputs."""
    return ("context", *method_of(spec).adapt_outputs(spec))


def check_graph(path: str | os.PathLike[str]) -> None:
    """Raises GateError unless the graph is valid, of opset OPSET, and takes every uint8 input into a Cast."""
    model = onnx.load(os.fspath(path))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"exported graph {path} is not valid ONNX: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise GateError(f"exported graph {path} has operator sets {opsets} instead of {OPSET}; use the pinned torch")
    for value in model.graph.input:
        if value.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            continue
        consumers = {node.op_type for node in model.graph.node if value.name in node.input}
        if consumers != {"Cast"}:
            raise GateError(f"exported graph {path}: input {value.name!r} goes into {sorted(consumers)}, not a Cast")


def export_graph(
    module: nn.Module,
    example: Tensor,
    path: str | os.PathLike[str],
    *,
    names: Sequence[str],
    shapes: Mapping[int, object],
) -> None:
    """Writes a module of one input and checks that the file is valid, not what it computes; GateError where it is not.

    `names`: the input, then the outputs; `shapes`: the free dimensions of the input. The file is written without the
    exporter's stack traces.
    """
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=list(names[:1]),
            output_names=list(names[1:]),
            dynamic_shapes=(dict(shapes),),
            verbose=False,
        )
    if program is None:
        raise GateError(f"exporting {path}: torch gave no graph; use the pinned torch")
    graph = program.model_proto
    _drop_metadata(graph)
    _measure_casts(graph.graph)
    onnx.save(graph, os.fspath(path))
    check_graph(path)


def _drop_metadata(model: onnx.ModelProto) -> None:
    """Stack traces hold paths of this machine and make equal exports differ."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]


def _measure_casts(graph: onnx.GraphProto) -> None:
    """Lets a Shape that reads a uint8 input read the Cast of it, which is as large, instead."""
    images = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    casts = {node.input[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in images}
    readers = [node for node in graph.node if node.op_type == "Shape" and node.input[0] in casts]
    for node in readers:
        node.input[0] = casts[node.input[0]].output[0]
    if readers:
        others = [node for node in graph.node if all(node is not cast for cast in casts.values())]
        ordered = [*casts.values(), *others]
        del graph.node[:]
        graph.node.extend(ordered)


def _compare(
    module: nn.Module, path: str | os.PathLike[str], inputs: Sequence[Tensor], *, names: Sequence[str]
) -> None:
    runtime = open_runtime(path, runtime="onnxruntime")
    try:
        for value in inputs:
            with torch.inference_mode():
                wanted = module(value)
            outputs = runtime.run({names[0]: value.numpy()})
            for name, tensor in zip(names[1:], [wanted] if isinstance(wanted, Tensor) else wanted, strict=True):
                _require_equal(outputs[name], tensor.numpy(), f"{path}, output {name}, input {tuple(value.shape)}")
    finally:
        runtime.close()


def _require_equal(actual: np.ndarray, wanted: np.ndarray, where: str) -> None:
    if actual.shape != wanted.shape:
        raise GateError(f"exported graph {where}: shape {actual.shape} instead of torch's {wanted.shape}")
    error = relative_error(actual, wanted)
    if not error <= TOLERANCE:
        raise GateError(f"exported graph {where}: {error:.2g} from torch, allowed {TOLERANCE:g}; use the pinned torch")


def relative_error(actual: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference, as a share of the largest magnitude where that is above 1: what rounding scales with."""
    return float(np.abs(actual - wanted).max() / max(float(np.abs(wanted).max()), 1.0))


def _images(count: int, size: Size) -> Tensor:
    levels = np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return torch.from_numpy(levels)


def _sizes(model: PoseModel, input_size: Size | None) -> list[Size]:
    multiple = model.spec.input.multiple
    return [input_size] if input_size else [(2 * multiple, 3 * multiple), (4 * multiple, 2 * multiple)]


def random_contexts(spec: ModelSpec, count: int) -> Tensor:
    """What the adapt graph may be fed for that many persons."""
    _, *sides = method_of(spec).context_shape(spec)
    shape = (count, *(side or 1 for side in sides))
    values = np.random.default_rng(count).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(np.maximum(values, 0))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes about its own internals off the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
