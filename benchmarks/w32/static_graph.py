"""The whole way from the network's input to keypoints as one torch module of fixed sizes, and as one CUDA graph."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from posesdk_converters.nvidia.fused_graph import Fused
from posesdk_training.models.logocap import LogoCap

__all__ = ["CapturedGraph", "fold_norms", "milliseconds", "static_graph"]

WARM_UP = 3
"""Runs before a capture, in which libraries choose their kernels."""


def static_graph(model: LogoCap, people: int, *, half: bool) -> Fused:
    """The fused graph of a copy of `model`, normalisation folded into the convolutions.

    With `half`, the network is float16 but for its last layers; what is a coordinate or a response is float32 anyway.
    """
    own = copy.deepcopy(model).eval()
    fold_norms(own)
    if half:
        own.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in (own.final_layer_cls, own.final_layer_reg, own.joints_mlp[-1]):
            _cast_inputs(layer.float(), torch.float32)
        for network in (own, own.joints_mlp):
            _cast_inputs(network, torch.float16)
    return Fused(own, people)


def _cast_inputs(module: nn.Module, dtype: torch.dtype) -> None:
    module.register_forward_pre_hook(lambda _, inputs: tuple(value.to(dtype) for value in inputs))


def fold_norms(module: nn.Module) -> None:
    """Puts every plain batch norm into the convolution before it, in place; of a module in evaluation mode."""
    children = dict(module.named_children())
    for child in children.values():
        fold_norms(child)
    for name, norm in children.items():
        before = str(int(name) - 1) if name.isdigit() else name.replace("bn", "conv")
        convolution = children.get(before)
        if type(norm) is nn.BatchNorm2d and isinstance(convolution, nn.Conv2d):
            setattr(module, before, fuse_conv_bn_eval(convolution, norm))
            setattr(module, name, nn.Identity())


class CapturedGraph:
    """A module on a GPU that is started as a whole, for inputs like `example`; results come back to the host."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self._staged = example.cpu().pin_memory()
        self._input = example.cuda()
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.device("cuda"), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    module(self._input)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(self._graph):
                outputs = module(self._input)
        self._outputs: Sequence[Tensor] = outputs if isinstance(outputs, tuple) else (outputs,)
        self._results = [torch.empty_like(value, device="cpu", pin_memory=True) for value in self._outputs]

    def replay(self) -> None:
        """Starts the graph on the input of before."""
        self._graph.replay()

    def submit(self, values: NDArray[np.uint8]) -> None:
        """Starts the graph and the copies around it, and does not wait. What was submitted before is collected."""
        self._staged.copy_(torch.from_numpy(values))
        self._input.copy_(self._staged, non_blocking=True)
        self._graph.replay()
        for source, target in zip(self._outputs, self._results, strict=True):
            target.copy_(source, non_blocking=True)
        self._done.record()

    def collect(self) -> list[NDArray[np.float32]]:
        """Waits for what was submitted last; its results."""
        self._done.synchronize()
        return [value.numpy().copy() for value in self._results]


def milliseconds(graph: CapturedGraph, runs: int) -> float:
    """Of one run on the GPU alone, by its own clock."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    graph.replay()
    first.record()
    for _ in range(runs):
        graph.replay()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / runs
