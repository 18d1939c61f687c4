"""Rounding imitated by noise: which keypoints would move on a backend that computes exactly the same model?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from posesdk.pipeline import Pipeline
from posesdk_runtimes.base import Runtime, Tensor, TensorSpec

__all__ = ["NoisyRuntime", "add_noise"]


@dataclass(frozen=True)
class NoisyRuntime:
    """A runtime whose outputs carry normal noise of `share` of their largest magnitude."""

    exact: Runtime
    share: float
    rng: np.random.Generator

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        return self.exact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        return self.exact.outputs

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name."""
        return {name: self._noisy(values) for name, values in self.exact.run(feeds).items()}

    def close(self) -> None:
        """Frees the graph."""
        self.exact.close()

    def _noisy(self, values: Tensor) -> Tensor:
        scale = np.float32(self.share * np.abs(values).max(initial=0))
        return np.asarray(values + scale * self.rng.standard_normal(values.shape, dtype=np.float32))


def add_noise(pipeline: Pipeline, share: float, seed: int) -> Pipeline:
    """The same pipeline with noise on the outputs of both graphs."""
    rng = np.random.default_rng(seed)
    adapt = None if pipeline.adapt is None else NoisyRuntime(pipeline.adapt, share, rng)
    return Pipeline(pipeline.spec, NoisyRuntime(pipeline.trunk, share, rng), adapt)
