"""Tiny .tflite files, put together with the file format's own schema: no converter, so a few milliseconds each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

KINDS = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


@dataclass
class GraphBuilder:
    """One subgraph; `tensor` and `constant` give indices, `operator` links them."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    codes: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(
        self, name: str, shape: Sequence[int | None], dtype: Any, quantization: tuple[float, int] | None = None
    ) -> int:
        """`None` is a free dimension."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), KINDS[np.dtype(dtype)], 0
        tensor.shape = [size or 1 for size in shape]
        if None in shape:
            tensor.shapeSignature = [-1 if size is None else size for size in shape]
        if quantization:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [quantization[0]], [quantization[1]]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, value: np.ndarray) -> int:
        index = self.tensor(name, value.shape, value.dtype)
        buffer = schema.BufferT()
        buffer.data = list(value.tobytes())
        self.tensors[index].buffer = len(self.buffers)
        self.buffers.append(buffer)
        return index

    def operator(
        self, name: str, inputs: Sequence[int], output: int, options: tuple[int, Any] | None = None, version: int = 1
    ) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.codes), list(inputs), [output]
        if options:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.codes.append(code)
        self.operators.append(operator)

    def write(self, path: Path, inputs: dict[str, int], outputs: dict[str, int], *, key: str | None) -> Path:
        """`key` of None writes no signature."""
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.name, graph.tensors, graph.operators = b"main", self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, [graph], self.buffers
        if key is not None:
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.subgraphIndex = key.encode(), 0
            signature.inputs, signature.outputs = _named(inputs), _named(outputs)
            model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def _named(tensors: dict[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        maps.append(entry)
    return maps


def write_convolution(path: Path, weight: np.ndarray) -> Path:
    """image uint8 [B, H, W, 3] -> maps [B, 4, H-2, W-2], level [B], with `weight` (4, 3, 3, 3); the same as in ONNX."""
    build = GraphBuilder()
    image = build.tensor("image_in", (None, None, None, 3), np.uint8)
    pixels = build.tensor("pixels", (None, None, None, 3), np.float32)
    inner = build.tensor("inner", (None, None, None, 4), np.float32)
    maps = build.tensor("maps_out", (None, 4, None, None), np.float32)
    level = build.tensor("level_out", (None,), np.float32)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = schema.TensorType.UINT8, schema.TensorType.FLOAT32
    build.operator("CAST", [image], pixels, (schema.BuiltinOptions.CastOptions, cast))
    convolution = schema.Conv2DOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = schema.Padding.VALID, 1, 1
    convolution.dilationHFactor = convolution.dilationWFactor = 1
    convolution.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kernel = build.constant("weight", np.ascontiguousarray(weight.transpose(0, 2, 3, 1)))
    bias = build.constant("bias", np.zeros(4, np.float32))
    build.operator("CONV_2D", [pixels, kernel, bias], inner, (schema.BuiltinOptions.Conv2DOptions, convolution))
    order = build.constant("order", np.array([0, 3, 1, 2], np.int32))
    build.operator("TRANSPOSE", [inner, order], maps)
    reducer = schema.ReducerOptionsT()
    reducer.keepDims = False
    axes = build.constant("axes", np.array([1, 2, 3], np.int32))
    build.operator("MEAN", [inner, axes], level, (schema.BuiltinOptions.ReducerOptions, reducer))
    return build.write(path, {"image": image}, {"maps": maps, "level": level}, key="serving_default")


def write_adder(path: Path) -> Path:
    """left [N] + right [M] -> sum."""
    build = GraphBuilder()
    left, right, total = (build.tensor(name, (None,), np.float32) for name in ("a", "b", "c"))
    build.operator("ADD", [left, right], total, (schema.BuiltinOptions.AddOptions, schema.AddOptionsT()))
    return build.write(path, {"left": left, "right": right}, {"sum": total}, key="serving_default")
