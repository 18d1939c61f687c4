"""A runtime that does not compute the same thing twice in a row."""

from collections.abc import Mapping

import numpy as np

from posesdk_runtimes.base import Runtime, Tensor, TensorSpec

__all__ = ["RememberingRuntime"]

REMEMBERED = 2
"""Calls that are remembered: an image and its mirror image, where a graph takes one at a time."""


class RememberingRuntime:
    """Another runtime, and its last answers: an image that is decoded in two ways goes through the trunk once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last: list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = []
        self._latest: Mapping[str, Tensor] = {}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Those of the other runtime."""
        return self._runtime.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Those of the other runtime."""
        return self._runtime.outputs

    @property
    def latest(self) -> Mapping[str, Tensor]:
        """What the last call gave; nothing before it."""
        return self._latest

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name; for feeds that were among the last ones, the same arrays again, as copies."""
        for asked, given in self._last:
            if asked.keys() == feeds.keys() and all(np.array_equal(asked[name], feeds[name]) for name in asked):
                self._latest = given
                return _copied(given)
        given = self._runtime.run(feeds)
        self._latest = _copied(given)
        self._last = [*self._last, (_copied(feeds), self._latest)][-REMEMBERED:]
        return given

    def close(self) -> None:
        """Frees the other runtime, and what is remembered."""
        self._last, self._latest = [], {}
        self._runtime.close()


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.copy() for name, tensor in tensors.items()}
