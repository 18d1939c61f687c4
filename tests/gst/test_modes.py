"""Which frames leave `logocappose` while its model is busy: modes auto, sync, skip and drop. No test sleeps."""

import pytest

from element_output import push, record_of, stats_of
from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

FRAME = 1_000_000_000 // 30


def counts_of(one):
    counts = stats_of(one)
    return tuple(counts[name] for name in ("frames", "inferred", "skipped", "dropped"))


@pytest.fixture
def hand_clock():
    import gi

    gi.require_version("GstCheck", "1.0")
    from gi.repository import GstCheck

    return GstCheck.TestClock()


@pytest.mark.parametrize(("live", "mode"), [(True, "skip"), (False, "sync"), (None, "sync")])
def test_auto_is_skip_for_a_live_source_and_sync_for_any_other(playing, picture, live, mode):
    one = playing(mode="auto", live=live)
    push(one, picture(), 0)
    assert stats_of(one)["mode"] == mode


def test_a_frame_of_sync_mode_leaves_after_its_inference(playing, picture, model, in_background):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    model.hold()
    pushed = in_background(one.push, picture(), 0)
    model.wait_until_busy()
    assert one.buffers == []
    model.let()
    assert pushed() == Gst.FlowReturn.OK
    assert [record_of(buffer).fresh for buffer in one.buffers] == [True]


def test_frames_of_skip_mode_leave_while_the_model_is_busy(playing, picture, model):
    one = playing(mode="skip")
    model.hold()
    for index in range(5):
        push(one, picture(index), index * FRAME)
    assert [buffer.pts for buffer in one.buffers] == [index * FRAME for index in range(5)]
    assert [record_of(buffer) for buffer in one.buffers] == [None] * 5


def test_skip_mode_infers_the_newest_frame_and_says_how_old_poses_are(playing, picture, model, in_background):
    from posesdk.gst.bindings import Gst

    one = playing(mode="skip", messages=True)
    model.hold()
    one.push(picture(0), 0)
    model.wait_until_busy()
    for index in range(1, 5):  # 1, 2 and 3 wait, each until the next one comes
        one.push(picture(index), index * FRAME)
    model.let()
    one.wait_for(Gst.MessageType.ELEMENT)
    one.push(picture(5), 5 * FRAME)  # replaces 4, unless the model has taken that already
    first = record_of(one.buffers[-1])
    assert (first.pts_ns, first.age_ns, first.fresh) == (0, 5 * FRAME, False)
    model.wait_until_busy()
    model.let()
    one.wait_for(Gst.MessageType.ELEMENT)
    one.push(picture(6), 6 * FRAME)
    second = record_of(one.buffers[-1])
    assert second.pts_ns in (4 * FRAME, 5 * FRAME)
    assert second.age_ns == 6 * FRAME - second.pts_ns
    model.free()
    assert one.send(Gst.Event.new_eos())
    frames, inferred, skipped, dropped = counts_of(one)
    assert (frames, dropped, len(one.buffers)) == (7, 0, 7)
    assert inferred + skipped == 7
    assert skipped >= 3


def test_the_end_of_the_stream_waits_for_the_last_poses(playing, picture, model, in_background):
    from posesdk.gst.bindings import Gst

    texts = []
    one = playing(mode="skip")
    one.element.connect("poses", lambda element, pts, text: texts.append(pts))
    model.hold()
    one.push(picture(0), 0)
    model.wait_until_busy()
    one.push(picture(1), FRAME)
    ended = in_background(one.send, Gst.Event.new_eos())
    model.let()
    model.wait_until_busy()
    assert Gst.EventType.EOS not in [event.type for event in one.events]
    model.let()
    assert ended()
    assert one.events[-1].type == Gst.EventType.EOS
    assert texts == [0, FRAME]
    assert counts_of(one) == (2, 2, 0, 0)


def test_every_frame_is_accounted_for_at_the_end_of_the_stream(playing, picture):
    from posesdk.gst.bindings import Gst

    one = playing(mode="skip")
    for index in range(30):
        one.push(picture(index), index * FRAME)
    one.send(Gst.Event.new_eos())
    frames, inferred, skipped, dropped = counts_of(one)
    assert frames == len(one.buffers) == 30
    assert inferred + skipped + dropped == 30
    assert inferred >= 1


def test_new_caps_wait_for_the_poses_of_the_old_ones_and_forget_them(playing, picture, model, in_background):
    heard = []
    one = playing(mode="skip")
    one.element.connect("poses", lambda element, pts, text: heard.append(pts))
    model.hold()
    one.push(picture(0), 0)
    model.wait_until_busy()
    changed = in_background(one.set_format, "RGB", 64, 48)
    model.let()
    assert changed()
    assert heard == [0]
    one.push(picture(1, 64, 48), FRAME)
    assert record_of(one.buffers[-1]) is None
    model.free()


def test_a_flush_ends_the_wait_for_poses_at_once_and_forgets(playing, picture, model, in_background):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    push(one, picture(0), 0)
    model.hold()
    pushed = in_background(one.push, picture(1), FRAME)
    model.wait_until_busy()
    assert one.send(Gst.Event.new_flush_start())
    assert pushed() == Gst.FlowReturn.FLUSHING  # while the model is still held
    assert one.send(Gst.Event.new_flush_stop(True))
    assert one.send_segment()
    one.push(picture(2), 0, flags=[Gst.BufferFlags.GAP])
    assert record_of(one.buffers[-1]) is None  # neither those from before the flush nor those that it cut off
    model.free()
    push(one, picture(3), FRAME)
    assert record_of(one.buffers[-1]).fresh


def test_poses_that_a_flush_cut_off_are_not_attached_later(playing, picture, model, eventually):
    from posesdk.gst.bindings import Gst

    one = playing(mode="skip")
    model.hold()
    one.push(picture(0), 0)
    model.wait_until_busy()
    one.send(Gst.Event.new_flush_start())
    one.send(Gst.Event.new_flush_stop(True))
    one.send_segment()
    model.let()
    eventually(lambda: stats_of(one)["inferred"] == 1)
    one.push(picture(1), 0, flags=[Gst.BufferFlags.GAP])
    assert record_of(one.buffers[-1]) is None


def test_frames_of_drop_mode_that_leave_have_their_own_poses(playing, picture, hand_clock):
    one = playing(mode="drop", clock=hand_clock, interval=2)
    for index in range(6):
        hand_clock.set_time(index * FRAME)
        push(one, picture(index), index * FRAME)
    assert [buffer.pts for buffer in one.buffers] == [0, 2 * FRAME, 4 * FRAME]
    assert all(record_of(buffer).fresh for buffer in one.buffers)
    assert counts_of(one) == (6, 3, 0, 3)


def test_drop_mode_drops_frames_that_are_late_by_more_than_a_frame(playing, picture, model, hand_clock):
    one = playing(mode="drop", clock=hand_clock)
    before = model.runs
    usual = 3 * FRAME  # of the source itself, as behind a jitter buffer
    for index, late in ((0, 0), (1, FRAME // 2), (2, 2 * FRAME), (3, 3 * FRAME), (7, FRAME // 2), (8, 0)):
        hand_clock.set_time(index * FRAME + usual + late)
        push(one, picture(index), index * FRAME)
    assert [buffer.pts // FRAME for buffer in one.buffers] == [0, 1, 7, 8]
    assert model.runs - before == 4
    assert counts_of(one) == (6, 4, 0, 2)


def test_drop_mode_without_a_clock_or_time_stamps_drops_nothing(playing, picture, hand_clock):
    from posesdk.gst.bindings import Gst

    one = playing(mode="drop")
    for index in (5, 4, 0):
        push(one, picture(index), index * FRAME)
    assert len(one.buffers) == 3
    other = playing(mode="drop", clock=hand_clock)
    for index in range(3):
        hand_clock.set_time(index * 10 * FRAME)
        push(other, picture(index), Gst.CLOCK_TIME_NONE)
    assert len(other.buffers) == 3


def test_drop_mode_measures_lateness_anew_after_a_segment(playing, picture, hand_clock):
    one = playing(mode="drop", clock=hand_clock)
    hand_clock.set_time(0)
    one.push(picture(0), 0)
    hand_clock.set_time(10 * FRAME)
    one.push(picture(1), FRAME)  # late
    one.send_segment()
    one.push(picture(2), 2 * FRAME)
    assert [buffer.pts // FRAME for buffer in one.buffers] == [0, 2]


def test_a_quality_event_drops_the_next_frame_only_with_qos(playing, picture, model):
    from posesdk.gst.bindings import Gst

    for qos, leaving in ((False, 3), (True, 2)):
        one = playing(mode="sync", qos=qos)
        before = model.runs
        one.push(picture(0), 0)
        event = Gst.Event.new_qos(Gst.QOSType.UNDERFLOW, 2.0, 2 * FRAME, 0)
        one.sink.push_event(event)
        one.push(picture(1), FRAME)  # before 0 + 2 frames: too late
        one.push(picture(2), 20 * FRAME)
        assert len(one.buffers) == leaving
        assert model.runs - before == leaving
