"""OpenVINO's Python module and its one `Core`, without what a device does not need of them."""

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["import_openvino", "shared_core"]

_TELEMETRY = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"
_import_lock = threading.Lock()
_core_lock = threading.Lock()


def import_openvino() -> Any:
    """The `openvino` module, imported as if its telemetry package were not installed. Raises ImportError.

    Importing it plainly starts a process that reports to Google Analytics, and writes ~/intel. It also loads the
    converter of other frameworks' models, which is half of the time of the import and 10 MiB: here, that is left to
    the first call of `openvino.convert_model`.
    """
    with _import_lock, _hidden(_TELEMETRY, _CONVERTER):
        openvino = importlib.import_module("openvino")
    if not hasattr(openvino, "convert_model"):
        openvino.convert_model = _convert_model  # type: ignore[attr-defined]  # for others in this process
    return openvino


def shared_core() -> Any:
    """The one `openvino.Core` of the process, which stays until its end. Raises ImportError.

    Each Core with a CPU gives its thread a stack for signals, and at its end puts back the one from before. Of two that
    end in the order in which they began, the second puts back the first one's, which is freed by then, and the next
    signal ends the process: Ctrl-C after a detector was closed (2026.4).
    """
    openvino = import_openvino()
    with _core_lock:
        return _make_core(openvino)


@lru_cache(maxsize=1)
def _make_core(openvino: Any) -> Any:
    return openvino.Core()


def _convert_model(*args: Any, **settings: Any) -> Any:
    """OpenVINO's `convert_model`, loaded when it is called, without its telemetry."""
    with _import_lock, _hidden(_TELEMETRY):
        converter = importlib.import_module(_CONVERTER)
    return converter.convert_model(*args, **settings)


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Has these modules fail to import, as if they were not installed; those that are loaded stay so."""
    known = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None is Python's way to make an import fail
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(known)
