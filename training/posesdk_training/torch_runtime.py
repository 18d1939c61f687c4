"""A model in torch behind the `Runtime` contract, so that the device-side code decodes it like any bundle."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from posesdk.methods import Shapes, method_of, trunk_outputs
from posesdk.pipeline import Pipeline
from posesdk.spec import ModelSpec
from posesdk_runtimes.base import Tensor as Array
from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.errors import DeviceUnavailableError, RuntimeFault
from posesdk_runtimes.feeds import check_feeds
from posesdk_training.models.build import PoseModel
from posesdk_training.models.graphs import Adapt, Trunk

__all__ = ["TorchRuntime", "torch_device", "torch_pipeline"]

Graph = Callable[..., Sequence[Tensor]]
FLOAT = np.dtype(np.float32)


class TorchRuntime:
    """One graph in float32: `graph` takes tensors in the order of `inputs` and gives those of `outputs`."""

    def __init__(
        self,
        graph: Graph,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        device: torch.device,
    ) -> None:
        self._graph: Graph | None = graph
        self._inputs = inputs
        self._outputs = outputs
        self._device = device

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
        graph = self._graph
        if graph is None:
            raise RuntimeFault("cannot run the torch model: it has been closed; open it again")
        tensors = check_feeds(self._inputs, feeds)
        try:
            with torch.inference_mode():
                values = graph(*(torch.from_numpy(tensors[spec.name]).to(self._device) for spec in self._inputs))
        except RuntimeError as error:
            raise RuntimeFault(f"torch failed to run the model on {self._device}: {error}") from error
        return {spec.name: value.cpu().numpy() for spec, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        """Frees the graph."""
        self._graph = None


def torch_pipeline(model: PoseModel, spec: ModelSpec | None = None, device: str = "cpu") -> Pipeline:
    """The device-side pipeline on a torch model, which is moved to `device` and put into evaluation mode.

    `spec` replaces the model's own. Raises DeviceUnavailableError for a device that torch cannot use.
    """
    used, place = spec or model.spec, torch_device(device)
    trunk = _trunk(model, place)
    return Pipeline(used, trunk, _adapt(model, place) if method_of(used).needs_adapt(used) else None)


def torch_device(name: str) -> torch.device:
    """A device by name; "auto" is CUDA where torch has it, else the CPU. Raises DeviceUnavailableError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceUnavailableError(
            f"cannot run a checkpoint on {name!r}: {error}; give cpu, or a torch build with that device"
        ) from error
    return device


def _trunk(model: PoseModel, device: torch.device) -> TorchRuntime:
    image = TensorSpec("image", (None, None, None, 3), np.dtype(np.uint8))
    return TorchRuntime(Trunk(model).to(device), (image,), _ports(trunk_outputs(model.spec)), device=device)


def _adapt(model: PoseModel, device: torch.device) -> TorchRuntime:
    spec, method = model.spec, method_of(model.spec)
    graph = Adapt(model).to(device)

    def run(context: Tensor) -> Sequence[Tensor]:
        outputs = graph(context)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    context = _ports({"context": method.context_shape(spec)})
    return TorchRuntime(run, context, _ports(method.adapt_outputs(spec)), device=device)


def _ports(shapes: Shapes) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, shape, FLOAT) for name, shape in shapes.items())
