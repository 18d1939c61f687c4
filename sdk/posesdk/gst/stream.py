"""What `logocappose` does with the frames of one run, from start to stop."""

import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from posesdk.gst.bindings import Gst
from posesdk.gst.faults import ElementFault
from posesdk.gst.frames import draw_on, to_bgr
from posesdk.gst.latency import LatencyReport, is_live
from posesdk.gst.lateness import Lateness
from posesdk.gst.layout import Layout, layout_of
from posesdk.gst.meta import attach_record
from posesdk.gst.opening import attached_kinds, open_model
from posesdk.gst.record import PoseRecord
from posesdk.gst.settings import MODES, validated
from posesdk.gst.stats import Stats
from posesdk.leaving import at_work, has_begun
from posesdk.poses import FrameInfo, Poses
from posesdk.video import Frame

__all__ = ["PoseStream"]

DROPPED = Gst.FlowReturn.CUSTOM_SUCCESS
"""GST_BASE_TRANSFORM_FLOW_DROPPED: the frame goes nowhere. Python does not have that name."""

FALLBACK_INTERVAL_NS = 33_333_333
"""Between the frames of a stream that does not say."""

GLANCE_S = 0.1
"""How long the streaming thread waits for poses before it looks whether the element is being stopped."""


class PoseStream:
    """Frames in, poses out; `process` is called by the streaming thread, and results may arrive in the model's thread.

    `element` is the LogocapPose whose property values are used. Raises ElementFault for settings and models that
    cannot be used.
    """

    def __init__(self, element: Any) -> None:
        self._element = element
        self._mode = validated("mode", element.value("mode"), MODES)
        self._kinds = attached_kinds(element.value("attach"))
        self.stats = Stats()
        self._client = open_model(element)
        self._lateness = Lateness()
        self._latency = LatencyReport(element, element.srcpad)
        self._lock = threading.Lock()
        self._arrived, self._flushing = threading.Event(), False
        self._segment: Any = None
        self._info: Any = None
        self._index, self._since_discont = -1, 0
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            self._epoch = object()
            self._latest: tuple[PoseRecord, int] | None = None
            self._fault: BaseException | None = None

    def stats_json(self) -> str:
        """What was done so far, and with what, as JSON."""
        info = self._client.info
        names = {name: getattr(info, name) for name in ("model", "variant", "runtime", "device", "precision")}
        return self.stats.to_json(mode=self._mode, **names)

    def set_format(self, info: Any) -> None:
        """Frames are of this GstVideo.VideoInfo from now on: what was found in others is forgotten."""
        self.drain()
        self._forget()
        self._info = info

    def set_segment(self, segment: Any) -> None:
        """Buffers lie in this Gst.Segment from now on."""
        self._segment = segment
        self._lateness.forget()

    def flush(self) -> None:
        """Wakes the streaming thread, which may wait for poses."""
        self._flushing = True
        self._client.cancel()
        self._arrived.set()

    def restart(self) -> None:
        """Forgets what was found before a flush."""
        self._client.cancel()
        self._forget()
        self._flushing = False
        self._lateness.forget()
        self._since_discont = 0

    def drain(self) -> None:
        """Returns when the poses of every frame that was taken are out, or nobody wants them any more.

        Raises what went wrong with them.
        """
        while not self._client.drain(GLANCE_S) and not self._is_given_up():
            pass
        self._raise_fault()

    def close(self) -> None:
        """Frees the model."""
        self._latency.close()
        self._client.close()

    def process(self, buffer: Any) -> Any:
        """Attaches poses to a frame, draws them, and says whether it goes on."""
        with at_work() as may_work:
            return self._process(buffer) if may_work else Gst.FlowReturn.FLUSHING

    def _process(self, buffer: Any) -> Any:
        if self._info is None:
            raise ElementFault(Gst.StreamError.WRONG_TYPE, "a frame came before its format; put videoconvert upstream")
        self._raise_fault()
        if self._mode == "auto":
            self._mode = "skip" if is_live(self._element.sinkpad) else "sync"
        self._latency.enabled = self._mode != "skip" and self._element.value("latency-report")
        self.stats.count("frames")
        self._index += 1
        wanted = self._is_due(buffer)
        if self._mode == "drop" and (not wanted or self._is_late(buffer)):
            self.stats.count("dropped")
            return DROPPED
        if not wanted:
            self.stats.count("skipped")
        elif not self._infer(buffer):
            return Gst.FlowReturn.FLUSHING
        self._deliver(buffer)
        self.stats.left()
        return Gst.FlowReturn.OK

    def _infer(self, buffer: Any) -> bool:
        """Hands a frame to the model and waits for its poses, but in mode skip; False where a flush or a stop ended it.

        It waits for what `_receive` sets: a future wakes who waits for it before it runs its callbacks.
        """
        arrived = self._arrived = threading.Event()
        self._submit(buffer, arrived)
        if self._mode == "skip":
            return True
        while not self._is_given_up() and not arrived.wait(GLANCE_S):
            pass
        self._raise_fault()
        return arrived.is_set() and not self._flushing

    def _is_given_up(self) -> bool:
        """Whether a flush, or the end of the run or of the program goes on: it waits for the streaming thread, which
        must not wait then for a listener that has caused it.
        """
        return self._flushing or has_begun() or not self._element.sinkpad.is_active()

    def _raise_fault(self) -> None:
        with self._lock:
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _is_due(self, buffer: Any) -> bool:
        if buffer.has_flags(Gst.BufferFlags.GAP):
            return False
        if buffer.has_flags(Gst.BufferFlags.DISCONT):
            self._since_discont = 0
        self._since_discont += 1
        return (self._since_discont - 1) % int(self._element.value("interval")) == 0

    def _is_late(self, buffer: Any) -> bool:
        clock = self._element.get_clock()
        if clock is None or self._segment is None or buffer.pts == Gst.CLOCK_TIME_NONE:
            return False
        due = self._segment.to_running_time(Gst.Format.TIME, buffer.pts)
        now = clock.get_time() - self._element.get_base_time()
        if due == Gst.CLOCK_TIME_NONE:
            return False
        interval = FALLBACK_INTERVAL_NS
        if self._info.fps_n:
            interval = Gst.SECOND * self._info.fps_d // self._info.fps_n
        return self._lateness.is_late(now, due, interval)

    def _submit(self, buffer: Any, arrived: threading.Event) -> None:
        layout = self._layout(buffer)
        with buffer.map(Gst.MapFlags.READ) as memory:
            image = to_bgr(memory.data, layout)
        pts = None if buffer.pts == Gst.CLOCK_TIME_NONE else buffer.pts
        source = self._element.value("stream-id") or self._element.get_name()
        frame = Frame(image, FrameInfo(source, self._index, None if pts is None else pts / Gst.SECOND))
        threshold = self._element.value("score-threshold")
        future = self._client.submit(
            frame,
            score_threshold=None if threshold < 0 else threshold,
            max_people=self._element.value("max-people"),
        )
        epoch, taken = self._epoch, time.monotonic_ns()

        def receive(done: "Future[Poses]") -> None:
            self._receive(done, epoch, pts, taken)
            arrived.set()  # not in a callback of its own, which runs at once where the future is done by then

        future.add_done_callback(receive)

    def _layout(self, buffer: Any) -> Layout:
        return layout_of(buffer, self._info)

    def _receive(self, done: "Future[Poses]", epoch: object, pts: int | None, taken: int) -> None:
        """Keeps and publishes a result; a future would swallow what is raised here."""
        if done.cancelled():
            self.stats.count("skipped")
            return
        try:
            record = PoseRecord.from_poses(done.result(), pts_ns=pts, runtime=self._client.info.runtime)
            self.stats.inferred(len(record.scores), record.infer_ms)
            self._latency.observe((time.monotonic_ns() - taken) / Gst.SECOND)
            with self._lock:
                if epoch is not self._epoch:
                    return
                self._latest = record, taken
            self._element.publish(record)
        except Exception as error:  # noqa: BLE001  (raised again with the next frame)
            with self._lock:
                self._fault = error

    def _deliver(self, buffer: Any) -> None:
        record = self._record_for(buffer)
        if record is None:
            return
        if self._kinds:
            attach_record(buffer, record, self._kinds)
        if self._element.value("draw") and len(record.scores):
            threshold = self._element.value("keypoint-threshold")
            poses = record.to_poses()
            if threshold >= 0:
                poses = replace(poses, keypoint_threshold=threshold)
            layout = self._layout(buffer)
            with buffer.map(Gst.MapFlags.READ | Gst.MapFlags.WRITE) as memory:
                draw_on(memory.data, layout, poses)

    def _record_for(self, buffer: Any) -> PoseRecord | None:
        """The newest poses with their age at this frame; None where there are none, or too old ones."""
        with self._lock:
            latest = self._latest
        if latest is None:
            return None
        record, taken = latest
        if record.index == self._index:
            return record
        age = time.monotonic_ns() - taken
        if record.pts_ns is not None and buffer.pts != Gst.CLOCK_TIME_NONE:
            age = buffer.pts - record.pts_ns  # below 0 where time stamps went back without a flush
        return record.aged(age) if 0 <= age <= self._element.value("max-age") else None
