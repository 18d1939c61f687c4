"""INT8 by NNCF: post-training quantization of OpenVINO models."""

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from posesdk_runtimes.base import Tensor
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.openvino import import_openvino

__all__ = ["import_nncf", "quantize", "round_weights"]

_TELEMETRY = "openvino_telemetry"


def import_nncf() -> Any:
    """The `nncf` module, imported as if OpenVINO's telemetry package were not installed, and with its log off.

    Raises MissingDependencyError. Importing it plainly starts a process that reports to Google Analytics.
    """
    known = {_TELEMETRY: sys.modules[_TELEMETRY]} if _TELEMETRY in sys.modules else {}
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to make an import fail
    logger_class = logging.getLoggerClass()
    try:
        import_openvino()
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        module = importlib.import_module("nncf")
    except ImportError as error:
        raise MissingDependencyError(
            f"quantizing for OpenVINO: NNCF cannot be imported ({error}); install it with "
            "`pip install 'posesdk[convert]'`"
        ) from error
    finally:
        sys.modules.pop(_TELEMETRY, None)
        sys.modules.update(known)
        logging.setLoggerClass(logger_class)  # NNCF makes its own the class of every later logger
    logging.getLogger("nncf").setLevel(logging.CRITICAL)
    return module


def quantize(model: Any, inputs: Sequence[Tensor], *, float_layers: Sequence[str] = ()) -> Any:
    """An `openvino.Model` in int8: its layers' inputs unsigned and asymmetric, weights signed and per channel.

    `inputs` are what the model is fed in use, of any size that it takes; the result is the same for the same inputs.
    Layers named in `float_layers` stay float. The model's own inputs and outputs keep their types.
    """
    nncf = import_nncf()
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=list(float_layers)) if float_layers else None,
        )


def round_weights(model: Any) -> Any:
    """An `openvino.Model` whose matrices are stored in 8 bit, signed and per output; what is computed stays float.

    OpenVINO rounds each row of what a product reads as it goes, where the processor is faster so.
    """
    nncf = import_nncf()
    with _quiet():
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps NNCF's progress bars, which go to stdout, off the user's screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
