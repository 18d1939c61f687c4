"""What `logocapoverlay` draws on the frames of one run, from start to stop."""

from dataclasses import replace
from typing import Any

from posesdk.gst.bindings import Gst
from posesdk.gst.faults import ElementFault
from posesdk.gst.frames import draw_on
from posesdk.gst.layout import layout_of
from posesdk.gst.meta import record_from_buffer
from posesdk.gst.record import PoseRecord
from posesdk.leaving import at_work
from posesdk.poses import Poses

__all__ = ["Painter"]


class Painter:
    """Chooses and draws the poses of each frame. `element` is the LogocapOverlay whose property values are used."""

    def __init__(self, element: Any) -> None:
        self._element = element
        self._info: Any = None
        self.forget()

    def set_format(self, info: Any) -> None:
        """Frames are of this GstVideo.VideoInfo from now on."""
        self._info = info

    def forget(self) -> None:
        """Forgets the poses of earlier frames."""
        self._last: PoseRecord | None = None
        self._last_pts: int = Gst.CLOCK_TIME_NONE

    def choose(self, buffer: Gst.Buffer) -> Poses | list[Any]:
        """The poses to draw, in pixels of the frame: its own, or those of an earlier one; empty if there are none.

        ValueError for metadata that cannot be read, ElementFault for a frame before its format.
        """
        if self._info is None:
            raise ElementFault(Gst.StreamError.WRONG_TYPE, "a frame came before its format; put videoconvert upstream")
        record = record_from_buffer(buffer)
        if record is not None:
            self._last, self._last_pts = record, buffer.pts
        elif self._is_over(buffer.pts):
            self.forget()
        if self._last is None:
            return []
        poses = self._last.to_poses(size=(self._info.height, self._info.width))
        threshold = self._element.value("keypoint-threshold")
        return poses if threshold < 0 else replace(poses, keypoint_threshold=threshold)

    def draw(self, buffer: Gst.Buffer, poses: Poses) -> None:
        """Draws on a writable buffer. ValueError for one that is shorter than its format says."""
        layout = layout_of(buffer, self._info)
        boxes, scores = (self._element.value(name) for name in ("boxes", "scores"))
        with at_work() as may_work, buffer.map(Gst.MapFlags.READ | Gst.MapFlags.WRITE) as memory:
            if may_work:
                draw_on(memory.data, layout, poses, boxes=boxes, scores=scores)

    def _is_over(self, pts: int) -> bool:
        """Whether a frame without poses comes too late for the last ones, before them, or at an unknown time."""
        keep = self._element.value("expire-overlay")
        if keep == Gst.CLOCK_TIME_NONE:
            return False
        if Gst.CLOCK_TIME_NONE in (pts, self._last_pts):
            return True
        return not 0 <= pts - self._last_pts <= keep
