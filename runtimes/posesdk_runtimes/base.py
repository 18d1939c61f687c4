"""The contract of a backend: tensors in, tensors out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runtime", "Tensor", "TensorSpec", "share"]

Tensor = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and element type of one input or output; a dimension of None is dynamic."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Runtime(Protocol):
    """One loaded graph on one device. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        ...

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name, for one tensor per input name. The arrays belong to the caller.

        Raises ValueError for a missing or unknown name or a shape that does not fit, RuntimeFault when the backend
        fails.
        """
        ...

    def close(self) -> None:
        """Frees the graph; further calls of `run` raise RuntimeFault. Closing twice is harmless."""
        ...


@runtime_checkable
class _Shareable(Protocol):
    def share(self, runs: int) -> Runtime:
        """The same graph, with the threads divided, for who runs it so many times at once."""
        ...


def share(runtime: Runtime, runs: int) -> Runtime:
    """The same graph for so many runs at a time, each with its part of the threads where the backend can do that.

    Closing either closes both.
    """
    return runtime.share(runs) if isinstance(runtime, _Shareable) else runtime
