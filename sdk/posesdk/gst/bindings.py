"""GStreamer's Python bindings in the versions that the elements use: the one place that imports `gi`.

Imports nothing else: GStreamer's plugin scanner imports the elements, and with them this file.
"""

import warnings

import gi

for _name in ("Gst", "GstBase", "GstVideo"):
    gi.require_version(_name, "1.0")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # of PyGObject before 3.44: how it imports is deprecated
    from gi.repository import GLib, GObject, Gst, GstBase, GstVideo

Gst.init(None)

__all__ = ["GLib", "GObject", "Gst", "GstBase", "GstVideo"]
