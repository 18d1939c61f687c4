"""GStreamer's Python bindings in the versions that the elements use: the one place that imports `gi`.

Imports nothing else: GStreamer's plugin scanner imports the elements, and with them this file.
"""

import gi

for _name in ("Gst", "GstBase", "GstVideo"):
    gi.require_version(_name, "1.0")

from gi.repository import GLib, GObject, Gst, GstBase, GstVideo  # noqa: E402  (the versions first)

Gst.init(None)

__all__ = ["GLib", "GObject", "Gst", "GstBase", "GstVideo"]
