"""OpenVINO: ONNX and OpenVINO IR graphs on CPUs and on Intel's GPUs and NPUs."""

import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posesdk_runtimes.base import Runtime, Tensor, TensorSpec
from posesdk_runtimes.errors import ArtifactError, DeviceUnavailableError, MissingDependencyError, RuntimeFault
from posesdk_runtimes.feeds import check_feeds
from posesdk_runtimes.openvino_forms import Forms
from posesdk_runtimes.openvino_library import import_openvino, shared_core
from posesdk_runtimes.openvino_shapes import is_of_persons, most_fixed, pad_rows

__all__ = ["OpenVINORuntime", "import_openvino", "shared_core"]

_REQUESTS = 4
"""Most threads that run one graph at a time, each with activations of its own; more threads wait."""
_CHANNELS_LAST = "[N,H,W,C]"
"""Layout of an output whose channels are innermost, as OpenVINO writes it."""
_PRECISIONS = ("f32", "f16", "bf16")


class OpenVINORuntime:
    """One .onnx or .xml file on `device`: "cpu", "gpu", "gpu.N", "npu", or "auto": a GPU if there is one, else the CPU.

    OpenVINO's own default on a CPU with bfloat16 is to run in it, which moves keypoints by whole pixels; here the
    arithmetic is always asked for by name, and `precision` is what the compiled graph says that it uses.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        if precision not in _PRECISIONS:
            raise ValueError(f"expected a precision of {', '.join(_PRECISIONS)}, got {precision!r}")
        try:
            core = shared_core()
            from openvino import frontend
        except ImportError as error:
            raise MissingDependencyError(
                f"cannot load {path}: OpenVINO cannot be imported ({error}); "
                "install it with `pip install 'posesdk[openvino]'`"
            ) from error
        # The frontends' exceptions have no base of their own.
        self._faults = (
            RuntimeError,
            frontend.GeneralFailure,
            frontend.OpConversionFailure,
            frontend.OpValidationFailure,
        )
        self._path = Path(path)
        target = _target(core, device, self._path)
        self.device = target.lower()
        model = self._read(core)
        self._of_persons = target == "CPU" and is_of_persons(model)
        forms = self._compile(core, model, target, precision, threads)
        compiled = forms.flexible.compiled
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self._threads = int(compiled.get_property("INFERENCE_NUM_THREADS")) if target == "CPU" else 1
        self._require(precision)
        self._inputs = tuple(_spec(port, port.node.friendly_name) for port in compiled.inputs)
        self._outputs = tuple(_spec(port, port.node.friendly_name) for port in compiled.outputs)
        self._axes = tuple(_axes(port) for port in compiled.outputs)
        self._slots = threading.BoundedSemaphore(_REQUESTS)
        self._forms: Forms | None = forms

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in its order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in its order."""
        return self._outputs

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name."""
        return self._run(feeds)

    def share(self, runs: int) -> Runtime:
        """This graph, for who runs it so many times at once: each run takes its part of the threads."""
        streams = min(runs, self._threads)
        return self if streams == 1 else _Share(self, partial(self._run, streams=streams))

    def _run(self, feeds: Mapping[str, Tensor], streams: int = 1) -> dict[str, Tensor]:
        tensors = list(check_feeds(self._inputs, feeds).values())
        persons = len(tensors[0]) if self._of_persons else None
        if self._of_persons:
            tensors = [pad_rows(tensor) for tensor in tensors]
        with self._slots:
            forms = self._forms
            if forms is None:
                raise RuntimeFault(f"cannot run {self._path}: it has been closed; open it again")
            try:
                values = forms.find(tensors, streams).run(tensors)
            except self._faults as error:
                raise RuntimeFault(f"OpenVINO failed to run {self._path} on {self.device}: {error}") from error
        shown = (
            (value if axes is None else value.transpose(axes))[:persons]
            for value, axes in zip(values, self._axes, strict=True)
        )
        return dict(zip((spec.name for spec in self._outputs), shown, strict=True))

    def close(self) -> None:
        """Frees the graph as soon as no thread runs it any more."""
        self._forms = None

    def _require(self, precision: str) -> None:
        if self.precision != precision:
            raise DeviceUnavailableError(
                f"OpenVINO runs {self._path} on {self.device.upper()} in {self.precision}, but {precision} was asked "
                "for; use another variant of the model, or another device"
            )

    def _read(self, core: Any) -> Any:
        if not self._path.is_file():
            raise ArtifactError(f"cannot load {self._path}: there is no such file; check the path")
        try:
            return core.read_model(str(self._path))
        except self._faults as error:
            raise ArtifactError(
                f"OpenVINO cannot read {self._path}: {error}; get or convert the model again"
            ) from error

    def _compile(self, core: Any, model: Any, target: str, precision: str, threads: int | None) -> Forms:
        settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}

        if threads and target == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads  # of all streams together

        def compile_for(one: Any, streams: int) -> Any:
            return core.compile_model(one, target, settings | ({"NUM_STREAMS": streams} if streams > 1 else {}))

        try:
            return Forms(
                model,
                compile_for,
                most_fixed=most_fixed(model) if target == "CPU" else 0,
            )
        except self._faults as error:
            message = f"OpenVINO cannot compile {self._path} for {target} in {precision}: {error}"
            if target == "CPU":
                raise ArtifactError(f"{message}; get or convert the model again") from error
            raise DeviceUnavailableError(f"{message}; use device 'cpu'") from error


class _Share:
    """A graph of which each run takes a part of the threads only."""

    def __init__(self, whole: OpenVINORuntime, run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> None:
        self.inputs, self.outputs = whole.inputs, whole.outputs
        self.run, self.close = run, whole.close


def _target(core: Any, device: str, path: Path) -> str:
    """OpenVINO's name of the device; its own AUTO changes the device, and with it the numbers, while it runs."""
    if device == "cpu" and core.get_versions("CPU"):
        return "CPU"  # asking for all devices loads the plugins of the others: 40 ms and 24 MiB
    available = core.available_devices
    gpus = [name for name in available if name.split(".")[0] == "GPU"]
    match device.split("."):
        case ["cpu"] | ["npu"]:
            target, found = device.upper(), device.upper() in available
        case ["gpu", *index]:
            target = device.upper()
            found = bool(gpus) if not index else target in (*gpus, *(f"{name}.0" for name in gpus))
        case ["auto"]:
            target, found = (*gpus, "CPU")[0], True
        case _:
            raise ValueError(f"expected a device 'cpu', 'gpu', 'gpu.N', 'npu' or 'auto' for OpenVINO, got {device!r}")
    if not found:
        raise DeviceUnavailableError(
            f"cannot load {path} on {device}: OpenVINO finds {', '.join(available) or 'no device'} here; "
            "install the device's driver, or use device 'cpu'"
        )
    return target


def _spec(port: Any, friendly_name: str) -> TensorSpec:
    # A tensor may carry the names of several nodes that became one; an output's node is `<name>/sink_port_0`.
    names = port.get_names()
    plain = friendly_name.split("/sink_port_")[0]
    name = plain if plain in names else min(names)
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    if (axes := _axes(port)) is not None:
        shape = tuple(shape[axis] for axis in axes)
    return TensorSpec(name, shape, np.dtype(port.get_element_type().to_dtype()))


def _axes(port: Any) -> tuple[int, ...] | None:
    """In which order the axes are shown: planes first where the graph says that it leaves maps with channels innermost.

    That is the order in which OpenVINO computes; whoever reads all channels at a few places needs no planes in memory.
    """
    return (0, 3, 1, 2) if str(port.node.get_layout()) == _CHANNELS_LAST else None
