"""float16 and int8 .tflite graphs, made of float32 ones by ai-edge-quantizer."""

import contextlib
import importlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from posesdk_converters.tflite.graph import name_tensors, read_operators
from posesdk_converters.tflite.quiet import quiet
from posesdk_runtimes.base import Tensor
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.tflite.runtime import import_interpreter

__all__ = ["Ranges", "observe_ranges", "quantize", "round_weights", "store_float16"]

INSTALL = "pip install 'posesdk[convert-mobile]'"
Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of each tensor, by its name."""
_NOT_QUANTIZED = "no_quantize"


def store_float16(content: bytes) -> bytes:
    """The same graph with its weights stored as float16; it computes in float32 where no delegate does otherwise."""
    quantizer = _import("quantizer")
    types = _import("qtyping")
    made = quantizer.Quantizer(content)
    weights = types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT)
    made.update_quantization_recipe(
        ".*",
        types.TFLOperationName.ALL_SUPPORTED,
        types.OpQuantizationConfig(weight_tensor_config=weights, compute_precision=types.ComputePrecision.FLOAT),
        _import("algorithm_manager").AlgorithmName.FLOAT_CASTING,
    )
    return _run(made, None)


def observe_ranges(content: bytes, inputs: Iterable[Tensor]) -> Ranges:
    """What the tensors of a graph with one input hold, over all inputs of the shape that the graph has.

    The very smallest and largest, since the rare high values are the persons.
    """
    with quiet():
        interpreter = import_interpreter()(model_content=content, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        (entry,) = interpreter.get_input_details()
        indices = _activations(content, interpreter)
        lowest, highest = dict.fromkeys(indices, np.inf), dict.fromkeys(indices, -np.inf)
        for tensor in inputs:
            interpreter.set_tensor(entry["index"], tensor)
            interpreter.invoke()
            for name, index in indices.items():
                values = interpreter.get_tensor(index)
                lowest[name] = min(lowest[name], float(values.min()))
                highest[name] = max(highest[name], float(values.max()))
    return {name: (lowest[name], highest[name]) for name in indices}


def quantize(content: bytes, ranges: Ranges, float_operators: Sequence[str]) -> bytes:
    """The graph in int8: weights signed and per channel, activations asymmetric; its inputs and outputs stay float.

    `float_operators` are left as they are. The result is the same for the same arguments.
    """
    recipe = _import("recipe").static_wi8_ai8()
    recipe += [_left_alone(".*", operation) for operation in ("INPUT", "OUTPUT")]
    if float_operators:
        recipe.append(_left_alone(f"^(?:{'|'.join(map(re.escape, float_operators))});$", "*"))
    found = {name: {"min": _one(low), "max": _one(high)} for name, (low, high) in ranges.items()}
    return _run(_import("quantizer").Quantizer(content, recipe), found)


def round_weights(content: bytes) -> bytes:
    """The graph with the matrices of its products in 8 bit, signed and per output; all that it hands on is float.

    Each row of what a product reads is rounded by its own range as it is computed, so nothing has to be calibrated.
    """
    return _run(_import("quantizer").Quantizer(content, _import("recipe").dynamic_wi8_afp32()), None)


def _activations(content: bytes, interpreter: Any) -> dict[str, int]:
    operators = read_operators(content)
    names = {operator.name for operator in operators} | {entry["name"] for entry in interpreter.get_input_details()}
    return {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details() if detail["name"] in names}


def _left_alone(regex: str, operation: str) -> dict[str, Any]:
    return {"regex": regex, "operation": operation, "algorithm_key": _NOT_QUANTIZED, "op_config": {}}


def _one(value: float) -> Tensor:
    return np.full((1, 1, 1, 1), value, np.float32)


def _run(made: Any, ranges: Mapping[str, Any] | None) -> bytes:
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # of its two progress bars one cannot be switched off
        result = made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return name_tensors(bytes(result.quantized_model))


def _import(name: str) -> Any:
    try:
        with quiet():
            return importlib.import_module(f"ai_edge_quantizer.{name}")
    except ImportError as error:
        raise MissingDependencyError(
            f"quantizing for TFLite: ai-edge-quantizer cannot be imported ({error}); install it with `{INSTALL}`"
        ) from error
