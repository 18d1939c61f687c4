"""ONNX Runtime: portable graphs on the CPU and on CUDA."""

import importlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posesdk_runtimes.base import Tensor, TensorSpec
from posesdk_runtimes.errors import ArtifactError, DeviceUnavailableError, MissingDependencyError, RuntimeFault
from posesdk_runtimes.feeds import check_feeds

__all__ = ["OnnxRuntime", "import_onnxruntime"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FATAL = 4
"""Severity from which ONNX Runtime writes to stderr; lesser errors arrive as exceptions."""
_WRONG = ("WeightBiasQuantization",)
"""Optimizers that are not run. This one rounds a bias beside int8 weights to multiples of the product of two scales, in
the scales' own type: in float16 that product is 0 or nearly so, and the bias another (1.31; AP 8 in place of 15)."""
_TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"
_import_lock = threading.Lock()
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def import_onnxruntime() -> Any:
    """The `onnxruntime` module with its telemetry off. Raises ImportError.

    From version 1.29 on, importing it plainly writes a device id below ~/.cache/Microsoft and reports to Microsoft;
    `disable_telemetry_events` comes too late for that, and the variable is looked at in the import only.
    """
    with _import_lock:
        before = os.environ.get(_TELEMETRY_OFF)
        os.environ[_TELEMETRY_OFF] = "1"
        try:
            module = importlib.import_module("onnxruntime")
        finally:
            os.environ.pop(_TELEMETRY_OFF)
            if before is not None:
                os.environ[_TELEMETRY_OFF] = before
    module.disable_telemetry_events()  # where it had been imported before
    return module


class OnnxRuntime:
    """One ONNX file on `device`: "cpu" or "cuda:N". Nothing falls back to another device.

    `precision` is "f32": a graph runs in the element types that it is stored with.
    """

    precision = "f32"

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None) -> None:
        try:
            onnxruntime = import_onnxruntime()
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as error:
            raise MissingDependencyError(
                f"cannot load {path}: ONNX Runtime cannot be imported ({error}); "
                "install it with `pip install onnxruntime`"
            ) from error
        # The library's exceptions have no base of their own.
        kinds = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
        self._faults: tuple[type[Exception], ...] = (*kinds, RuntimeError)
        self.device = device
        self._path = Path(path)
        self._session: Any = self._open(onnxruntime, threads)
        self._inputs = tuple(self._spec(value) for value in self._session.get_inputs())
        self._outputs = tuple(self._spec(value) for value in self._session.get_outputs())

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
        session = self._session
        if session is None:
            raise RuntimeFault(f"cannot run {self._path}: it has been closed; open it again")
        tensors = check_feeds(self._inputs, feeds)
        names = [spec.name for spec in self._outputs]
        try:
            values = session.run(names, tensors)
        except self._faults as error:
            raise RuntimeFault(f"ONNX Runtime failed to run {self._path} on {self.device}: {error}") from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Frees the graph as soon as no thread runs it any more."""
        self._session = None

    def _open(self, onnxruntime: Any, threads: int | None) -> Any:
        provider, options = _provider(self.device)
        offered = onnxruntime.get_available_providers()
        if provider not in offered:
            raise self._unavailable(f"this ONNX Runtime offers {', '.join(offered)}")
        if not self._path.is_file():
            raise ArtifactError(f"cannot load {self._path}: there is no such file; check the path")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or 0
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _FATAL
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(self._path), settings, [provider], [options], enable_fallback=0, disabled_optimizers=list(_WRONG)
            )
        except self._faults as error:
            if provider == _CUDA and isinstance(error, RuntimeError):  # of the provider, not of the model
                raise self._unavailable(str(error)) from error
            raise ArtifactError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {self._path}: {error}; "
                "get or convert the model again"
            ) from error
        if session.get_providers()[0] != provider:
            raise self._unavailable(f"the session took {', '.join(session.get_providers())} instead")
        return session

    def _spec(self, value: Any) -> TensorSpec:
        if value.type not in _DTYPES:
            raise ArtifactError(f"cannot load {self._path}: {value.name!r} is a {value.type}, not a tensor of numbers")
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))

    def _unavailable(self, reason: str) -> DeviceUnavailableError:
        return DeviceUnavailableError(
            f"cannot load {self._path} on {self.device}: {reason}; for CUDA install onnxruntime-gpu in place of "
            "onnxruntime, with the CUDA and cuDNN versions that it asks for, or use device 'cpu'"
        )


def _provider(device: str) -> tuple[str, dict[str, str]]:
    family, _, index = device.partition(":")
    match family:
        case "cpu":
            return _CPU, {}
        case "cuda":
            return _CUDA, {"device_id": index or "0"}
    raise ValueError(f"expected a device 'cpu' or 'cuda:N' for ONNX Runtime, got {device!r}")
