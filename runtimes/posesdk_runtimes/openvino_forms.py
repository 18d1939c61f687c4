"""The compiled forms of one OpenVINO graph: one for every shape, and one each for those that come often.

Where several runs at a time share the processors, as those of a video do, a shape that comes often gets a form in which
they go side by side: runs that each want all processors wait for one another, which takes processor time too.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, LifoQueue
from typing import Any

from posesdk_runtimes.base import Tensor
from posesdk_runtimes.openvino_library import import_openvino

__all__ = ["Form", "Forms"]

OFTEN = 16
"""Calls of one shape before it gets a form of its own: what compiling costs is made good within some hundred."""

Shapes = tuple[tuple[int, ...], ...]


class Form:
    """One compiled graph, and the requests that nobody uses at the moment."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: LifoQueue[Any] = LifoQueue()
        self._make_tensor = import_openvino().Tensor

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs in the graph's order, which are the caller's."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self.compiled.create_infer_request()
        # `infer` takes as long to make tensors of arrays as for all else that it does beside the graph.
        shared = {
            index: self._make_tensor(tensor if tensor.flags.writeable else tensor.copy(), shared_memory=True)
            for index, tensor in enumerate(tensors)
        }
        values: tuple[Tensor, ...] = request.infer(shared, share_inputs=True, share_outputs=False).to_tuple()
        self._idle.put(request)  # but not where it failed: what it is good for then is not documented
        return values


class Forms:
    """Which form runs which input shapes.

    With free sizes OpenVINO copies maps that it only looks at differently with fixed ones: a fifth of a small int8
    trunk. What is computed is the same. Shapes that the graph cannot compute go to no form at all: OpenVINO 2026.4 on
    one thread answers them with the outputs of the call before, or ends the process; so each new set of shapes goes
    through the model's own shape inference first (1 ms for a small trunk, once).

    The form for every shape is let go where all calls so far were of one shape, as those of a video: of a small trunk
    it holds 15 MiB. It is compiled again if another shape comes after all, and then stays.

    `compile_model` is called with the number of streams: runs that go on at the same time, each on its own threads. All
    others wait for one another.
    """

    def __init__(self, model: Any, compile_model: Callable[[Any, int], Any], *, most_fixed: int) -> None:
        self._model, self._compile = model, compile_model
        self._flexible: Form | None = Form(compile_model(model, 1))
        self._fixed: dict[tuple[int, Shapes], Form] = {}
        self._left = most_fixed if model.is_dynamic() else 0
        self._calls: dict[tuple[int, Shapes], int] = {}
        self._lock = threading.RLock()

    @property
    def flexible(self) -> Form:
        """The form for every shape."""
        with self._lock:
            if self._flexible is None:
                self._flexible = Form(self._compile(self._model, 1))
            return self._flexible

    def find(self, tensors: Sequence[Tensor], streams: int = 1) -> Form:
        """The form for these inputs, of so many streams if there is one.

        Raises OpenVINO's RuntimeError for shapes that the graph cannot compute.
        """
        shapes = tuple(tensor.shape for tensor in tensors)
        wanted = streams, shapes
        if (fixed := self._fixed.get(wanted)) is not None:
            return fixed
        with self._lock:
            if (fixed := self._fixed.get(wanted)) is not None:
                return fixed
            calls = self._calls.get(wanted, 0) + 1
            model = self._reshaped(shapes) if calls in (1, OFTEN) else None
            self._calls[wanted] = calls
            if calls != OFTEN or not self._left:
                return self._of_any_streams(shapes) or self.flexible
            self._left -= 1
            if len({seen for _, seen in self._calls}) == 1:
                self._flexible = None  # before the other is made, so that there is memory for one
                self._fixed[wanted] = Form(self._compile(model, streams))
                return self._fixed[wanted]
        self._fixed[wanted] = Form(self._compile(model, streams))  # other threads go on meanwhile
        return self._fixed[wanted]

    def _of_any_streams(self, shapes: Shapes) -> Form | None:
        return next((form for (_, own), form in tuple(self._fixed.items()) if own == shapes), None)

    def _reshaped(self, shapes: Shapes) -> Any:
        model = self._model.clone()
        model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
        return model
