"""One interpreter of LiteRT: its tensors, the shapes that it is set up for, and integers that stand for numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posesdk_runtimes.base import Tensor, TensorSpec
from posesdk_runtimes.tflite.greeting import without_greeting

__all__ = ["FAULTS", "Port", "Ports", "Session", "freed_ports", "read_port"]

FAULTS = (RuntimeError, ValueError)
"""What the interpreter raises, for a file as for a run."""
_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor of the graph: where it is, how it is seen from outside, and `scale` > 0 where it holds integers."""

    index: int
    spec: TensorSpec
    dtype: np.dtype[Any]
    scale: float = 0.0
    zero_point: int = 0

    def store(self, tensor: Tensor) -> Tensor:
        """As the graph wants it."""
        if not self.scale:
            return tensor
        limits = np.iinfo(self.dtype)
        levels = np.rint(tensor / np.float32(self.scale)) + self.zero_point
        return levels.clip(limits.min, limits.max).astype(self.dtype)

    def load(self, tensor: Tensor) -> Tensor:
        """As the caller wants it."""
        if not self.scale:
            return tensor
        return (tensor.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


Ports = tuple[tuple[Port, ...], tuple[Port, ...]]


class Session:
    """One interpreter and the shapes that it is set up for; for one thread at a time."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        inputs = interpreter.get_input_details()
        self._shapes: list[tuple[int, ...]] | None = None
        if not any(-1 in detail["shape_signature"] for detail in inputs):  # else the shapes mean nothing yet
            self._allocate()
            self._shapes = [tuple(map(int, detail["shape"])) for detail in inputs]

    def details(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What the interpreter says about inputs and outputs."""
        return self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def names(self) -> dict[int, str]:
        """The names of the tensors in the signature, if there is one that can be meant."""
        signatures = self._interpreter.get_signature_list()
        if not signatures or (_SIGNATURE not in signatures and len(signatures) > 1):
            return {}
        runner = self._interpreter.get_signature_runner(_SIGNATURE if _SIGNATURE in signatures else None)
        return {
            detail["index"]: name
            for details in (runner.get_input_details(), runner.get_output_details())
            for name, detail in details.items()
        }

    def resize(self, shapes: Sequence[tuple[int, ...]], indices: Sequence[int]) -> None:
        """Sets the graph up for other input shapes, which costs next to nothing where they are the same."""
        if list(shapes) == self._shapes:
            return
        for index, shape in zip(indices, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, list(shape))
        self._allocate()
        self._shapes = list(shapes)

    def _allocate(self) -> None:
        with without_greeting():
            self._interpreter.allocate_tensors()

    def run(self, tensors: Sequence[Tensor], ports: Ports) -> list[Tensor]:
        """The outputs, in the graph's order; copies."""
        inputs, outputs = ports
        self.resize([tensor.shape for tensor in tensors], [port.index for port in inputs])
        for port, tensor in zip(inputs, tensors, strict=True):
            self._interpreter.set_tensor(port.index, port.store(tensor))
        self._interpreter.invoke()
        return [port.load(self._interpreter.get_tensor(port.index)) for port in outputs]


def read_port(detail: dict[str, Any], names: dict[int, str], *, pictures: bool) -> Port:
    """`pictures`: uint8 is no quantized number, whatever scale it has."""
    shape = detail.get("shape_signature")
    if shape is None or len(shape) != len(detail["shape"]):
        shape = detail["shape"]
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    quantized = scale > 0 and dtype.kind in "iu" and not (pictures and dtype == np.uint8)
    spec = TensorSpec(
        names.get(detail["index"], detail["name"]),
        tuple(int(size) if size >= 0 else None for size in shape),
        np.dtype(np.float32) if quantized else dtype,
    )
    return Port(detail["index"], spec, dtype, *((float(scale), int(zero_point)) if quantized else ()))


def freed_ports(session: Session, ports: Ports) -> Ports | None:
    """The ports with a free first dimension where the layers allow it, as they are for pictures; None if they do not.

    A file that was converted with one person says nothing about others, so two are tried. Pictures come one at a time,
    and room for two would be kept.
    """
    inputs, outputs = ports
    firsts = [port.spec.shape[:1] for port in inputs]
    if not all(firsts) or (None,) in firsts:
        free = bool(inputs) and all(first == (None,) for first in firsts)
        return (inputs, tuple(_free(port) for port in outputs)) if free else ports
    if any(first != (1,) or port.spec.dtype == np.uint8 for first, port in zip(firsts, inputs, strict=True)):
        return ports
    before = [tuple(detail["shape"]) for detail in session.details()[1]]
    shapes = [tuple(size or 1 for size in port.spec.shape) for port in inputs]
    indices = [port.index for port in inputs]
    try:
        session.resize([(2, *shape[1:]) for shape in shapes], indices)
        after = [tuple(detail["shape"]) for detail in session.details()[1]]
        session.resize(shapes, indices)
    except FAULTS:
        return None
    if after != [(2, *shape[1:]) for shape in before]:
        return ports
    return tuple(_free(port) for port in inputs), tuple(_free(port) for port in outputs)


def _free(port: Port) -> Port:
    return replace(port, spec=replace(port.spec, shape=(None, *port.spec.shape[1:])))
