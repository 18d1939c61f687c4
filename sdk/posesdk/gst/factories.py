"""The elements: name, rank for automatic choice, class. Imports nothing heavy: GStreamer's plugin scanner reads it."""

import importlib
import importlib.util

from posesdk.gst.bindings import Gst

__all__ = ["FACTORIES"]

_HOMES = (
    ("logocappose", "element", "LogocapPose"),
    ("logocapposejson", "sidecar", "LogocapPoseJson"),
    ("logocapoverlay", "overlay", "LogocapOverlay"),
)

FACTORIES = tuple(
    (name, Gst.Rank.NONE, getattr(importlib.import_module(f"posesdk.gst.{module}"), element))
    for name, module, element in _HOMES
    if importlib.util.find_spec(f"posesdk.gst.{module}") is not None
)
