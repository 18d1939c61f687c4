"""Which shapes an OpenVINO graph is fed: pictures of few sizes, or persons, of whom there are ever more or fewer.

OpenVINO gets a graph ready anew whenever a shape differs from that of the call before: 0.1 to 0.2 ms for a small
`adapt` graph, which takes as long to compute five persons. Two things make such changes rare: rows of zeros behind the
persons, so that there are fewer numbers of rows, and forms of a fixed shape for those that come often.
"""

from typing import Any

import numpy as np

from posesdk_runtimes.base import Tensor

__all__ = ["MOST_FOR_PERSONS", "MOST_FOR_PICTURES", "is_of_persons", "most_fixed", "pad_rows", "row_count"]

MOST_FOR_PICTURES = 2
"""Most forms of a fixed shape, each of which holds weights of its own: 9 to 12 MiB for a small trunk."""
MOST_FOR_PERSONS = 3
"""The same where rows are persons: 3 to 4 MiB for the `adapt` graph of a small model, compiled in 50 ms."""
_MOST_WEIGHTS = 1_000_000
"""Most bytes of weights of such a graph; beyond, a form takes 10 MiB and more, and gains less."""
_CONTEXT = "context"
"""The one input of a bundle's `adapt` graph, which computes every row by itself."""
_STEP = 4
"""Numbers of rows above 2 are multiples of this: a row too many takes 0.01 to 0.02 ms of a small graph."""
_LARGEST_ROW = 10_000
"""Most numbers of a row with which that holds: nano has 6800, W32 131648 and half a millisecond a row."""


def most_fixed(model: Any) -> int:
    """Most forms of a fixed shape that pay for a graph: what is fed to most is seldom of the same shapes."""
    if [(port.get_element_type().to_dtype(), len(port.get_partial_shape())) for port in model.inputs] == [
        (np.uint8, 4)
    ]:
        return MOST_FOR_PICTURES
    return MOST_FOR_PERSONS if is_of_persons(model) and _weight_bytes(model) <= _MOST_WEIGHTS else 0


def is_of_persons(model: Any) -> bool:
    """Whether every row of a graph is a person, and so cheap that some more may be computed."""
    if len(model.inputs) != 1 or _CONTEXT not in model.inputs[0].get_names():
        return False
    persons, *sizes = model.inputs[0].get_partial_shape()
    if any(size.is_dynamic for size in sizes) or np.prod([size.get_length() for size in sizes]) > _LARGEST_ROW:
        return False
    return all(size.is_dynamic for size in (persons, *(port.get_partial_shape()[0] for port in model.outputs)))


def row_count(persons: int) -> int:
    """How many rows are computed for so many persons."""
    return persons if persons <= 2 else -(-persons // _STEP) * _STEP


def pad_rows(tensor: Tensor) -> Tensor:
    """The tensor (N, ...) with rows of zeros behind it, up to `row_count`."""
    persons = len(tensor)
    if (rows := row_count(persons)) == persons:
        return tensor
    padded = np.empty((rows, *tensor.shape[1:]), tensor.dtype)
    padded[:persons], padded[persons:] = tensor, 0
    return padded


def _weight_bytes(model: Any) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")
