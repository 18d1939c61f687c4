"""A runtime that keeps what it is fed."""

from collections.abc import Mapping

from posesdk_runtimes.base import Runtime, Tensor, TensorSpec

__all__ = ["FeedRecorder"]


class FeedRecorder:
    """Runs another runtime; `feeds` holds a copy of every set of inputs, in order."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.feeds: list[dict[str, Tensor]] = []

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        return self._inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        return self._inner.outputs

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name."""
        self.feeds.append({name: value.copy() for name, value in feeds.items()})
        return self._inner.run(feeds)

    def close(self) -> None:
        """Frees the graph."""
        self._inner.close()
