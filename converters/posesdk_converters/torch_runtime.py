"""The torch model behind the `Runtime` contract: in the device-side pipeline it is the reference of every variant."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from posesdk.adapt import uses_attraction
from posesdk.pipeline import Pipeline
from posesdk.spec import ModelSpec
from posesdk_converters.onnx import Adapt, Trunk
from posesdk_runtimes.base import Tensor as Array
from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.errors import RuntimeFault
from posesdk_training.models.logocap import LogoCap

__all__ = ["TorchRuntime", "torch_pipeline"]

FLOAT = np.dtype(np.float32)


class TorchRuntime:
    """One graph in torch, on the CPU in float32.

    `noise` adds normal noise of that share of each output's largest magnitude, to see what rounding alone can move.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._module: nn.Module | None = module.eval()
        self._inputs, self._outputs = inputs, outputs
        self._noise, self._rng = noise, np.random.default_rng(seed)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name."""
        if self._module is None:
            raise RuntimeFault("cannot run the torch model: it has been closed")
        with torch.inference_mode():
            result = self._module(*(torch.from_numpy(feeds[spec.name]) for spec in self._inputs))
        values = (result,) if isinstance(result, Tensor) else result
        return {spec.name: self._noisy(value.numpy()) for spec, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        """Frees the graph."""
        self._module = None

    def _noisy(self, values: Array) -> Array:
        if not self._noise or not values.size:
            return values
        scale = np.float32(self._noise * np.abs(values).max())
        return np.asarray(values + scale * self._rng.standard_normal(values.shape, dtype=np.float32))


def torch_pipeline(model: LogoCap, spec: ModelSpec | None = None, *, noise: float = 0.0, seed: int = 0) -> Pipeline:
    """The device-side pipeline on the torch model; `spec` replaces the model's own."""
    used = spec or model.spec
    keypoints, depth, size = used.keypoint_count, used.heads.embedding, used.adaptation.local_size
    trunk = TorchRuntime(
        Trunk(model),
        (TensorSpec("image", (None, None, None, 3), np.dtype(np.uint8)),),
        (
            TensorSpec("heatmaps", (None, keypoints + 1, None, None), FLOAT),
            TensorSpec("offsets", (None, 2 * keypoints, None, None), FLOAT),
            TensorSpec("embedding", (None, None, None, depth), FLOAT),
        ),
        noise=noise,
        seed=seed,
    )
    if not uses_attraction(used):
        return Pipeline(used, trunk, None)
    adapt = TorchRuntime(
        Adapt(model),
        (TensorSpec("context", (None, keypoints * depth, size, size), FLOAT),),
        (TensorSpec("attraction_maps", (None, keypoints, size, size), FLOAT),),
        noise=noise,
        seed=seed,
    )
    return Pipeline(used, trunk, adapt)
