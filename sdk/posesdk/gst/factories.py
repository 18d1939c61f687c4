"""The elements: name, rank for automatic choice, class. Imports nothing heavy: GStreamer's plugin scanner reads it."""

from posesdk.gst.bindings import Gst
from posesdk.gst.element import LogocapPose
from posesdk.gst.noise import mute_floating_complaint
from posesdk.gst.overlay import LogocapOverlay
from posesdk.gst.sidecar import LogocapPoseJson

__all__ = ["FACTORIES"]

mute_floating_complaint()  # here, so that programs that know only the shims are spared it, too

FACTORIES = (
    ("logocappose", Gst.Rank.NONE, LogocapPose),
    ("logocapposejson", Gst.Rank.NONE, LogocapPoseJson),
    ("logocapoverlay", Gst.Rank.NONE, LogocapOverlay),
)
