"""What an element that waits for its poses tells the pipeline: how much later frames leave because of it.

Imports nothing but GStreamer's bindings: GStreamer's plugin scanner imports the elements, and with them this file.
"""

import ctypes
import weakref

from posesdk.gst.bindings import Gst
from posesdk.gst.native import library

__all__ = ["LatencyReport", "is_live"]

HEADROOM = 1.05
"""Reported for each second measured, so that a run that takes a little longer is not late."""
DRIFT = 0.25
"""A change of the smoothed time by more than this part of the announced one is announced anew."""
WEIGHT = 1 / 8
"""Of a new measurement in the smoothed time."""


def is_live(sink_pad: Gst.Pad) -> bool:
    """Whether frames reach the pad in real time, as upstream says; False where nobody upstream answers."""
    query = Gst.Query.new_latency()
    if not sink_pad.peer_query(query):
        return False
    live, _, _ = query.parse_latency()
    return bool(live)


class LatencyReport:
    """Adds the time that an element needs for a frame to the latency that its source pad answers.

    `enabled` says whether the element waits for its poses; while it is False, upstream's answer passes as it is. Holds
    the element weakly: what the pad's probe keeps alive would never be freed with the pad.
    """

    def __init__(self, element: Gst.Element, src_pad: Gst.Pad) -> None:
        self.enabled = False
        self._element = weakref.ref(element)
        self._smoothed: float | None = None
        self._announced: float | None = None
        self._pad_name = src_pad.get_name()
        self._probe = src_pad.add_probe(Gst.PadProbeType.QUERY_UPSTREAM | Gst.PadProbeType.PULL, self._answer)

    @property
    def nanoseconds(self) -> int:
        """What is added to upstream's latency: the announced time with its headroom, 0 while nothing is reported."""
        if not self.enabled or self._announced is None:
            return 0
        return int(self._announced * HEADROOM * Gst.SECOND)

    def observe(self, seconds: float) -> None:
        """Takes the time that one frame needed; posts a LATENCY message where the smoothed time has drifted."""
        before = seconds if self._smoothed is None else self._smoothed
        self._smoothed = before + WEIGHT * (seconds - before)
        if not self.enabled:
            return
        known = self._announced
        if known is None or abs(self._smoothed - known) > DRIFT * known:
            self._announced = self._smoothed
            element = self._element()
            if element is not None:
                element.post_message(Gst.Message.new_latency(element))

    def close(self) -> None:
        """Leaves upstream's answers alone from now on; calling it twice is harmless."""
        self.enabled = False
        element, probe, self._probe = self._element(), self._probe, 0
        if element is not None and probe:
            element.get_static_pad(self._pad_name).remove_probe(probe)

    def _answer(self, pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        """Runs after upstream has answered. A wrapped query has a second owner, and GStreamer 1.26 then refuses to
        change it, hence ctypes on the query itself; `hash` of what PyGObject wraps is its address.
        """
        added = self.nanoseconds
        if added:
            _add_latency(hash(info), added)
        return Gst.PadProbeReturn.OK


def _add_latency(probe_info: int, nanoseconds: int) -> None:
    """Adds to minimum and maximum of a latency query; a query of another type and an unlimited maximum stay."""
    native = library()
    query = native.gst_pad_probe_info_get_query(probe_info)
    structure = native.gst_query_get_structure(query)
    if not structure or not native.gst_structure_has_name(structure, b"GstQueryLatency"):
        return
    live, least, most = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_uint64()
    native.gst_query_parse_latency(query, ctypes.byref(live), ctypes.byref(least), ctypes.byref(most))
    limit = most.value if most.value == Gst.CLOCK_TIME_NONE else most.value + nanoseconds
    native.gst_query_set_latency(query, live, least.value + nanoseconds, limit)
