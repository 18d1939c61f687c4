"""What a `logocappose` gave: the poses on its buffers, its statistics. Imports GStreamer when called."""

import json


def poses_of(buffer):
    from posesdk.gst.meta import poses_from_buffer

    return poses_from_buffer(buffer)


def record_of(buffer):
    from posesdk.gst.meta import record_from_buffer

    return record_from_buffer(buffer)


def stats_of(one):
    """The property `stats` of a PadHarness's element."""
    return json.loads(one.element.get_property("stats"))


def push(one, picture, pts=0, **more):
    """Pushes a frame into a PadHarness and expects that it is taken."""
    from posesdk.gst.bindings import Gst

    flow = one.push(picture, pts, **more)
    assert flow == Gst.FlowReturn.OK, [message.parse_error() for message in one.messages(Gst.MessageType.ERROR)]
