"""The check of what is fed to a graph, the same for every backend."""

from collections.abc import Mapping, Sequence

import numpy as np

from posesdk_runtimes.base import Tensor, TensorSpec

__all__ = ["check_feeds"]


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The feeds in the graph's order, C-contiguous. Raises ValueError where one does not fit."""
    expected = [spec.name for spec in specs]
    if set(feeds) != set(expected):
        raise ValueError(f"expected the inputs {expected}, got {sorted(feeds)}")
    return {spec.name: _checked(spec, feeds[spec.name]) for spec in specs}


def _checked(spec: TensorSpec, tensor: Tensor) -> Tensor:
    if not isinstance(tensor, np.ndarray):
        raise ValueError(f"input {spec.name!r}: expected a numpy array, got {type(tensor).__name__}")
    if tensor.dtype != spec.dtype:
        raise ValueError(f"input {spec.name!r}: expected {spec.dtype}, got {tensor.dtype}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted_shape = "[" + ", ".join("?" if size is None else str(size) for size in spec.shape) + "]"
        raise ValueError(f"input {spec.name!r}: expected shape {wanted_shape}, got {list(tensor.shape)}")
    return np.ascontiguousarray(tensor)
