"""The elements: name, rank for automatic choice, class. Imports nothing heavy: GStreamer's plugin scanner reads it."""

from posesdk.gst.bindings import Gst
from posesdk.gst.element import LogocapPose
from posesdk.gst.overlay import LogocapOverlay
from posesdk.gst.sidecar import LogocapPoseJson

__all__ = ["FACTORIES"]

FACTORIES = (
    ("logocappose", Gst.Rank.NONE, LogocapPose),
    ("logocapposejson", Gst.Rank.NONE, LogocapPoseJson),
    ("logocapoverlay", Gst.Rank.NONE, LogocapOverlay),
)
