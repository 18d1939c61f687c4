"""GStreamer's own C library, for what its Python bindings cannot do.

`hash` of what PyGObject wraps is its address, the first argument of most functions.
"""

import ctypes
import sys
from functools import cache

__all__ = ["library"]

NAMES = {"linux": "libgstreamer-1.0.so.0", "darwin": "libgstreamer-1.0.0.dylib", "win32": "gstreamer-1.0-0.dll"}

_ADDRESS, _TEXT, _INT, _UINT64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64

SIGNATURES = {
    "gst_buffer_add_custom_meta": (_ADDRESS, (_ADDRESS, _TEXT)),
    "gst_buffer_get_custom_meta": (_ADDRESS, (_ADDRESS, _TEXT)),
    "gst_buffer_remove_meta": (_INT, (_ADDRESS, _ADDRESS)),
    "gst_custom_meta_get_structure": (_ADDRESS, (_ADDRESS,)),
    "gst_mini_object_is_writable": (_INT, (_ADDRESS,)),
    "gst_pad_probe_info_get_query": (_ADDRESS, (_ADDRESS,)),
    "gst_query_get_structure": (_ADDRESS, (_ADDRESS,)),
    "gst_query_parse_latency": (None, (_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS)),
    "gst_query_set_latency": (None, (_ADDRESS, _INT, _UINT64, _UINT64)),
    "gst_structure_has_name": (_INT, (_ADDRESS, _TEXT)),
    "gst_structure_set_value": (None, (_ADDRESS, _TEXT, _ADDRESS)),
}
"""Result and arguments of each function that is called."""


@cache
def library() -> ctypes.CDLL:
    """The library that the bindings have loaded, with `SIGNATURES` set."""
    found = ctypes.CDLL(NAMES.get(sys.platform, NAMES["linux"]))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found
