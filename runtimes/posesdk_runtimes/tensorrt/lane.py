"""What runs a TensorRT engine for one caller at a time."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from posesdk_runtimes.base import Tensor, TensorSpec
from posesdk_runtimes.errors import PoseSDKError, RuntimeFault
from posesdk_runtimes.tensorrt.cuda import Cuda, host_bytes

__all__ = ["GraphSwitch", "Lane", "Shapes"]

_log = logging.getLogger(__name__)

Shapes = tuple[tuple[int, ...], ...]
STEADY = 3
"""Runs with the same shapes after which they are worth a graph, and after which TensorRT has nothing left to set up."""


class GraphSwitch:
    """Whether CUDA graphs are used; goes off for all lanes of an engine where one cannot be made."""

    def __init__(self, wanted: bool, path: object) -> None:
        self.on = wanted
        self._path = path
        self._lock = threading.Lock()

    def fail(self, reason: object) -> None:
        """Switches graphs off, and says so once."""
        with self._lock:
            if self.on:
                self.on = False
                _log.warning("%s runs without CUDA graphs: %s", self._path, reason)


class _Staging:
    """One tensor on both sides: pinned memory and its copy on the GPU, which grow and never shrink."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._capacity = 0
        self.host = 0
        self.device = 0

    def reserve(self, size: int) -> None:
        """Makes room for `size` bytes; the addresses and the content change where there was too little."""
        if size <= self._capacity:
            return
        capacity = max(size, 2 * self._capacity)
        self.close()
        self.host = self._cuda.allocate_host(capacity)
        self.device = self._cuda.allocate(capacity)
        self._capacity = capacity

    def close(self) -> None:
        if self.host:
            self._cuda.free_host(self.host)
        if self.device:
            self._cuda.free(self.device)
        self.host = self.device = self._capacity = 0


class Lane:
    """One execution context with a stream, an event, buffers, and a graph for the shapes that it is set to.

    To be used by one thread at a time, on the engine's device. `explain` gives what TensorRT has to say of a failure.
    """

    def __init__(self, module: Any, cuda: Cuda, context: Any, explain: Callable[[], str], graphs: GraphSwitch) -> None:
        self.shapes: Shapes | None = None
        self._module = module
        self._cuda = cuda
        self._context = context
        self._explain = explain
        self._graphs = graphs
        self._staging: dict[str, _Staging] = {}
        self._sizes: dict[str, int] = {}
        self._results: dict[str, tuple[int, ...]] = {}
        self._inputs: tuple[str, ...] = ()
        self._runs = self._graph = self._stream = self._event = 0
        try:
            self._stream = cuda.create_stream()
            self._event = cuda.create_event()
            self._take_profile()
        except PoseSDKError:
            self.close()
            raise

    def run(self, feeds: Mapping[str, Tensor], outputs: Sequence[TensorSpec]) -> dict[str, Tensor]:
        """Every output by name, in new arrays, for contiguous feeds that fit the engine's profile."""
        shapes: Shapes = tuple(tensor.shape for tensor in feeds.values())
        if shapes != self.shapes:
            self._reshape(feeds, outputs)
            self.shapes = shapes
        for name, tensor in feeds.items():
            host_bytes(self._staging[name].host, tensor.nbytes)[:] = tensor.reshape(-1).view("u1")
        self._start()
        self._cuda.record(self._event, self._stream)
        self._cuda.wait(self._event)
        return {spec.name: self._read(spec) for spec in outputs}

    def close(self) -> None:
        """Frees everything, after what is still running."""
        if self._stream:
            try:
                self._cuda.synchronize(self._stream)
            except PoseSDKError as error:
                _log.debug("closing a stream: %s", error)
        self._drop_graph()
        self._context = None
        for staging in self._staging.values():
            staging.close()
        self._staging = {}
        if self._event:
            self._cuda.destroy_event(self._event)
        if self._stream:
            self._cuda.destroy_stream(self._stream)
        self._event = self._stream = 0

    def _take_profile(self) -> None:
        # Before TensorRT 10 a profile is one context's alone, unless the engine was built with PROFILE_SHARING_0806.
        context = self._context
        if context.active_optimization_profile == 0:
            return
        if not context.set_optimization_profile_async(0, self._stream):
            raise RuntimeFault(f"its profile is in use: {self._explain()}")
        self._cuda.synchronize(self._stream)

    def _reshape(self, feeds: Mapping[str, Tensor], outputs: Sequence[TensorSpec]) -> None:
        self.shapes = None
        self._runs = 0
        self._drop_graph()  # it holds the addresses and the context's state
        self._inputs = tuple(feeds)
        context = self._context
        for name, tensor in feeds.items():
            if not context.set_input_shape(name, self._module.Dims(list(tensor.shape))):
                raise RuntimeFault(f"it takes no {name!r} of {list(tensor.shape)}: {self._explain()}")
        try:
            unknown = context.infer_shapes()
        except RuntimeError as error:
            raise RuntimeFault(f"its sizes do not fit each other: {error} {self._explain()}") from error
        if unknown:
            raise RuntimeFault(f"the sizes of {', '.join(unknown)} are open: {self._explain()}")
        self._results = {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in outputs}
        self._sizes = {name: tensor.nbytes for name, tensor in feeds.items()}
        for spec in outputs:
            shape = self._results[spec.name]
            if min(shape, default=0) < 0:
                raise RuntimeFault(f"the size of its output {spec.name!r}, {list(shape)}, depends on values")
            self._sizes[spec.name] = prod(shape) * spec.dtype.itemsize
        self._place()

    def _place(self) -> None:
        for name, size in self._sizes.items():
            staging = self._staging.setdefault(name, _Staging(self._cuda))
            staging.reserve(max(size, 1))
            if not self._context.set_tensor_address(name, staging.device):
                raise RuntimeFault(f"it takes no address for {name!r}: {self._explain()}")

    def _start(self) -> None:
        self._runs += 1
        if not self._graph and self._graphs.on and self._runs > STEADY:
            self._capture()
        if self._graph:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._queue()

    def _queue(self) -> None:
        for name in self._inputs:
            staging = self._staging[name]
            self._cuda.copy_to_device(staging.device, staging.host, self._sizes[name], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise RuntimeFault(self._explain())
        for name in self._results:
            staging = self._staging[name]
            self._cuda.copy_to_host(staging.host, staging.device, self._sizes[name], self._stream)

    def _capture(self) -> None:
        try:
            self._cuda.begin_capture(self._stream)
        except PoseSDKError as error:
            self._graphs.fail(error)
            return
        try:
            self._queue()
        except PoseSDKError as error:
            self._cuda.drop_capture(self._stream)
            self._graphs.fail(error)
            return
        try:
            self._graph = self._cuda.end_capture(self._stream)
        except PoseSDKError as error:
            self._graphs.fail(error)

    def _read(self, spec: TensorSpec) -> Tensor:
        size = self._sizes[spec.name]
        data = host_bytes(self._staging[spec.name].host, size).copy()
        return data.view(spec.dtype).reshape(self._results[spec.name])

    def _drop_graph(self) -> None:
        if self._graph:
            self._cuda.destroy_graph(self._graph)
        self._graph = 0
