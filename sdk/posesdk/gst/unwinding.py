"""Keeps C++ exceptions of model runtimes working in a process that loads GStreamer."""

import ctypes
import sys

__all__ = ["keep_exceptions_working"]


def keep_exceptions_working() -> None:
    """Puts libgcc's exception handling before that of libunwind, which GStreamer's library brings; Linux alone has it.

    Both define the same functions. A library that is loaded after GStreamer takes libunwind's, where libstdc++ may have
    taken libgcc's already, and the first C++ exception that meets both aborts the process: an ONNX file that cannot be
    read is enough. It helps only before GStreamer is loaded.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
        except OSError:  # a system without it has nothing to mix up
            return
