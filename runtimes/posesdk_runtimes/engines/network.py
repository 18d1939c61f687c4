"""An ONNX file as a TensorRT network, in the typing that the installed TensorRT offers.

TensorRT 8.6 knows weak typing only: builder flags name the element types that layers may be computed in. 10.x has both;
11 and TensorRT-RTX have strong typing only: every tensor keeps the type that the graph gives it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.engines.job import BuildFault, Job, Messages
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange, default_recipe

__all__ = ["Network", "Vendor", "make_profile", "parse_network"]

_ROUNDED = (
    *("CONVOLUTION", "ELEMENTWISE", "ACTIVATION", "POOLING", "RESIZE", "REDUCE", "UNARY", "SCALE", "GRID_SAMPLE"),
    *("MATRIX_MULTIPLY", "TOPK", "SELECT", "GATHER", "SLICE", "CONCATENATION"),  # those of a fused graph's decoder
)
"""Layers that weak typing may round; that of others (constants, shapes) must not be set."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """The library, with what lives as long as a build."""

    trt: Any
    logger: Any
    builder: Any
    messages: Messages

    @property
    def has_strong(self) -> bool:
        """Whether there is strong typing."""
        return hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def has_weak(self) -> bool:
        """Whether there is weak typing."""
        return hasattr(self.trt.BuilderFlag, "FP16")


@dataclass(frozen=True, slots=True)
class Network:
    """A network, the builder flags that its types want, and the parser, which owns weights of it."""

    definition: Any
    parser: Any
    flags: tuple[Any, ...] = ()


def parse_network(vendor: Vendor, job: Job) -> Network:
    """Raises BuildFault for a graph that this TensorRT cannot read, or a precision that it does not have."""
    wants_strong = job.recipe is None or job.recipe.strongly_typed
    if vendor.has_strong and (wants_strong or not vendor.has_weak):
        network = _parse(vendor, job, strong=True)
        if job.precision == "f32" or "HALF" in _types(network.definition):
            return network
        if not vendor.has_weak:
            raise BuildFault(
                "precision",
                f"{vendor.trt.__name__} {vendor.trt.__version__} computes in the types of the graph, which is in "
                "float32 throughout",
            )
    return _weakly_typed(vendor, job)


def make_profile(vendor: Vendor, network: Any, recipe: GraphRecipe | None) -> Any:
    """The optimization profile, None where every shape is fixed. Raises BuildFault for shapes that do not fit."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not free:
        return None
    profiles = (recipe or default_recipe([_spec(tensor) for tensor in free])).profiles
    profile = vendor.builder.create_optimization_profile()
    for tensor in free:
        shapes = _fitting(tensor, profiles.get(tensor.name))
        profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
    return profile


def _parse(vendor: Vendor, job: Job, *, strong: bool) -> Network:
    kinds = vendor.trt.NetworkDefinitionCreationFlag
    name = "STRONGLY_TYPED" if strong else "EXPLICIT_BATCH"  # the latter is the default, and deprecated, from 10 on
    flags = 1 << int(getattr(kinds, name)) if strong or not vendor.has_strong else 0
    definition = vendor.builder.create_network(flags)
    parser = vendor.trt.OnnxParser(definition, vendor.logger)
    if not parser.parse_from_file(job.onnx):
        faults = [parser.get_error(index) for index in range(parser.num_errors)]
        vendor.messages.errors[:] = [_line(fault) for fault in faults]
        raise vendor.messages.fault("parse", f"TensorRT {vendor.trt.__version__} cannot read the graph")
    return Network(definition, parser)


def _line(fault: Any) -> str:
    """What is wrong, with the operator and the node from TensorRT 10 on."""
    what = " ".join(fault.desc().split())
    return f"{fault.node_operator()} {fault.node_name()}: {what}" if hasattr(fault, "node_operator") else what


def _weakly_typed(vendor: Vendor, job: Job) -> Network:
    network = _parse(vendor, job, strong=False)
    kinds, builder = vendor.trt.BuilderFlag, vendor.builder
    types = _types(network.definition)
    quantizes = any(layer.type == vendor.trt.LayerType.QUANTIZE for layer in _layers(network.definition))
    flags = []
    if job.precision == "f16" or "HALF" in types:
        _require(builder, "platform_has_fast_fp16", "fp16")
        flags.append(kinds.FP16)
    if quantizes:
        _require(builder, "platform_has_fast_int8", "int8")
        flags.append(kinds.INT8)
    if "HALF" in types and hasattr(kinds, "OBEY_PRECISION_CONSTRAINTS"):
        _keep_floats(vendor, network.definition)
        flags.append(kinds.OBEY_PRECISION_CONSTRAINTS)
    return Network(network.definition, network.parser, tuple(flags))


def _require(builder: Any, attribute: str, precision: str) -> None:
    if not getattr(builder, attribute, True):
        raise BuildFault("precision", f"this GPU does not compute in {precision}")


def _keep_floats(vendor: Vendor, definition: Any) -> None:
    """Layers that the graph has in float32 on purpose stay so beside those in float16."""
    kinds = {getattr(vendor.trt.LayerType, name, None) for name in _ROUNDED}
    for layer in _layers(definition):
        if layer.type in kinds and layer.get_output_type(0) == vendor.trt.DataType.FLOAT:
            layer.precision = vendor.trt.DataType.FLOAT


def _types(definition: Any) -> set[str]:
    """Names of the element types that layers of the network give."""
    return {
        str(layer.get_output_type(index)).rpartition(".")[2]
        for layer in _layers(definition)
        for index in range(layer.num_outputs)
    }


def _layers(definition: Any) -> Iterator[Any]:
    return (definition.get_layer(index) for index in range(definition.num_layers))


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(None if side < 0 else side for side in tensor.shape), np.dtype(np.float32))


def _fitting(tensor: Any, shapes: ShapeRange | None) -> ShapeRange:
    wanted = tuple(tensor.shape)
    if shapes is None:
        raise BuildFault(
            "shapes", f"the recipe gives no shapes for the input {tensor.name!r}, which has free dimensions"
        )
    for shape in (shapes.min, shapes.opt, shapes.max):
        if len(shape) != len(wanted) or any(side not in (-1, size) for side, size in zip(wanted, shape, strict=True)):
            raise BuildFault(
                "shapes", f"the recipe's shapes {shapes} do not fit the input {tensor.name!r} {list(wanted)}"
            )
    return shapes
