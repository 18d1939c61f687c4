"""Convolutions as a processor likes them best: wide ones, one after the other, and nothing else."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SHAPES", "Shape", "write_chain"]

OPSET = 18
LEVEL = 0.02
"""Between two values of a quantized map."""
NARROW = 16
"""Channels of a chain's input and output, so that hardly any time goes to the conversion of maps."""


@dataclass(frozen=True)
class Shape:
    """`layers` 3x3 convolutions of `channels` on a map of `rows` x `columns`, and a narrow one at either end."""

    channels: int
    rows: int
    columns: int
    layers: int

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.rows}x{self.columns}"

    @property
    def widths(self) -> list[int]:
        """Channels from the input to the output."""
        return [NARROW, *[self.channels] * (self.layers + 1), NARROW]

    @property
    def multiply_adds(self) -> int:
        """Of the whole chain."""
        return KERNEL**2 * self.rows * self.columns * sum(inputs * outputs for inputs, outputs in pairwise(self.widths))


KERNEL = 3
SHAPES = (Shape(256, 64, 64, 2), Shape(256, 32, 40, 3), Shape(128, 64, 80, 2), Shape(64, 64, 80, 4))
"""Large ones, and ones short enough to fall between what other programs do on the machine."""


def write_chain(path: Path, shape: Shape, *, int8: bool) -> None:
    """Writes an ONNX file of convolutions with ReLU, float32, or int8 with unsigned maps."""
    chain = _Chain(int8)
    value = chain.quantized("input") if int8 else "input"
    for index, widths in enumerate(pairwise(shape.widths)):
        value = chain.convolution(value, index, widths)
    size = [1, NARROW, shape.rows, shape.columns]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("input", value)]
    graph = helper.make_graph(chain.nodes, "chain", ends[:1], ends[1:], chain.constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), path)


class _Chain:
    def __init__(self, int8: bool) -> None:
        self._int8 = int8
        self._random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        if int8:
            self._level, self._zero = self._constant("level", np.float32(LEVEL)), self._constant("zero", np.uint8(0))

    def convolution(self, value: str, index: int, widths: tuple[int, int]) -> str:
        """Appends one that reads this tensor, from so many channels to so many; its output."""
        weights, name = self._weights(index, *widths), f"layer{index}"
        padding = [KERNEL // 2] * 4
        self.nodes.append(helper.make_node("Conv", [value, weights], [f"{name}/sum"], name=name, pads=padding))
        self.nodes.append(helper.make_node("Relu", [f"{name}/sum"], [name]))
        return self.quantized(name) if self._int8 else name

    def quantized(self, value: str) -> str:
        """Rounds a tensor to levels; what comes out."""
        levels, rounded = f"{value}/levels", f"{value}/rounded"
        self.nodes.append(helper.make_node("QuantizeLinear", [value, self._level, self._zero], [levels]))
        self.nodes.append(helper.make_node("DequantizeLinear", [levels, self._level, self._zero], [rounded]))
        return rounded

    def _weights(self, index: int, inputs: int, outputs: int) -> str:
        name, size, deviation = f"weights{index}", (outputs, inputs, KERNEL, KERNEL), (inputs * KERNEL**2) ** -0.5
        if not self._int8:
            values = deviation * self._random.standard_normal(size, dtype=np.float32)
            return self._constant(name, values)
        stored = self._constant(name, self._random.integers(-127, 128, size, dtype=np.int8))
        scales = self._constant(f"{name}/scales", np.full(outputs, deviation / 64, np.float32))
        zeros = self._constant(f"{name}/zeros", np.zeros(outputs, np.int8))
        self.nodes.append(helper.make_node("DequantizeLinear", [stored, scales, zeros], [f"{name}/float"], axis=0))
        return f"{name}/float"

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
