"""Keeps C++ exceptions of model runtimes working in a process that loads GStreamer.

GStreamer's library may bring libunwind, which defines the functions of libgcc that carry C++ exceptions, for every
library that is loaded after it. Where libstdc++ was loaded before it and uses libgcc's, the first exception that meets
both aborts the process: numpy, then GStreamer, then a model that ONNX Runtime cannot read are enough. Linux alone has
it; imports nothing but the standard library.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["exceptions_kept", "prefer_libgcc"]

FUNCTION = "_Unwind_Resume"


def prefer_libgcc() -> None:
    """Puts libgcc's functions before libunwind's for whatever is loaded later; too late once GStreamer is loaded."""
    if sys.platform == "linux":
        _libgcc(ctypes.RTLD_GLOBAL)


@contextmanager
def exceptions_kept() -> Iterator[None]:
    """Python modules that are imported inside take the functions that libstdc++ takes, also where GStreamer and numpy
    were loaded before this package: they look into the libraries that they name before all others.
    """
    if sys.platform != "linux" or not _are_mixed():
        yield
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


def _are_mixed() -> bool:
    """Whether libstdc++ uses libgcc's functions and a library that is loaded now would use others."""
    libgcc = _libgcc(ctypes.RTLD_LOCAL)
    everything = ctypes.CDLL(None)
    if libgcc is None or not hasattr(everything, FUNCTION):
        return False
    ours, next_one = (ctypes.cast(getattr(one, FUNCTION), ctypes.c_void_p).value for one in (libgcc, everything))
    order = [
        name for path in _loaded() for name in ("libstdc++", "libunwind") if os.path.basename(path).startswith(name)
    ]
    return ours != next_one and order[:1] == ["libstdc++"]


def _libgcc(mode: int) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libgcc_s.so.1", mode=mode)
    except OSError:  # a system without it has nothing to mix up
        return None


class _Library(ctypes.Structure):
    """The beginning of `struct dl_phdr_info`."""

    _fields_ = (("address", ctypes.c_void_p), ("path", ctypes.c_char_p))


def _loaded() -> list[str]:
    """The paths of the libraries of this process, in the order in which they were loaded."""
    paths = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)

    def visit(library: "ctypes._Pointer[_Library]", size: int, data: int | None) -> int:
        paths.append((library.contents.path or b"").decode(errors="replace"))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(kind(visit), None)
    return paths
