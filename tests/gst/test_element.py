"""`logocappose` as one element between two pads: which poses leave with which frames."""

import json
from dataclasses import replace

import numpy as np
import pytest

from element_output import poses_of, push, record_of, stats_of
from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

SECOND = 1_000_000_000
FRAME = SECOND // 30
FORMATS = ("RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "NV12", "I420", "GRAY8")


@pytest.fixture(scope="module")
def detector(converted_bundle):
    from posesdk.detector import Detector

    with Detector(converted_bundle, runtime="onnxruntime", threads=1) as one:
        yield one


def pixels_of(buffer):
    from posesdk.gst.bindings import Gst

    with buffer.map(Gst.MapFlags.READ) as memory:
        return bytes(memory.data)


def push_all(one, *frames, **more):
    """Pushes frames of (picture, pts) and expects that each is taken."""
    for picture, pts in frames:
        push(one, picture, pts, **more)


def assert_same(found, expected, places=0.01):
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=places)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(96, 64), (93, 61)])
@pytest.mark.parametrize("padding", [None, 13])
def test_poses_equal_those_of_the_picture_that_the_frame_shows(
    playing, picture, model, detector, *, name, size, padding
):
    from pad_harness import from_planes, to_planes

    one = playing(mode="sync", format=name, size=size)
    source = picture(3, *size)
    push_all(one, (source, 7), padding=padding)
    shown, seen = from_planes(to_planes(source, name), name, size[0]), model.seen
    off = 2 if name in ("NV12", "I420") else 0  # both round, and the reference's matrix has three digits
    np.testing.assert_allclose(seen.astype(int), shown, atol=off)
    found = poses_of(one.buffers[0])
    assert_same(found, detector(seen))
    assert found.image_size == (size[1], size[0])
    assert found.frame.pts == pytest.approx(7e-9)


def test_frames_leave_unchanged_in_order_and_with_their_time_stamps(playing, picture):
    one = playing(mode="sync", size=(93, 61))
    frames = [(picture(seed, 93, 61), seed * FRAME) for seed in range(4)]
    before = [pixels_of(one.make_buffer(*frame)) for frame in frames]
    push_all(one, *frames)
    assert [buffer.pts for buffer in one.buffers] == [pts for _, pts in frames]
    assert [pixels_of(buffer) for buffer in one.buffers] == before


def test_every_frame_of_sync_mode_has_its_own_poses(playing, picture, detector):
    one = playing(mode="sync")
    frames = [(picture(seed), seed * FRAME) for seed in range(5)]
    push_all(one, *frames)
    for index, (buffer, (source, pts)) in enumerate(zip(one.buffers, frames, strict=True)):
        record = record_of(buffer)
        assert (record.fresh, record.age_ns, record.pts_ns, record.index) == (True, 0, pts, index)
        assert_same(record.to_poses(), detector(source))


def test_time_stamps_beyond_2_to_the_31_ns_are_carried_exactly(playing, picture):
    heard = []
    one = playing(mode="sync", messages=True)
    one.element.connect("poses", lambda element, pts, text: heard.append((pts, json.loads(text)["stream"]["pts_ns"])))
    times = [2**31 + 1, 3_600 * SECOND + 12_345_678_901, 2**62 + 3]
    push_all(one, *((picture(), pts) for pts in times))
    assert [record_of(buffer).pts_ns for buffer in one.buffers] == times
    assert heard == [(pts, pts) for pts in times]


def test_frames_without_time_stamps_have_poses_without(playing, picture, detector):
    from posesdk.gst.bindings import Gst

    heard = []
    one = playing(mode="sync")
    one.element.connect("poses", lambda element, pts, text: heard.append((pts, json.loads(text)["pts"])))
    push_all(one, (picture(), Gst.CLOCK_TIME_NONE))
    assert record_of(one.buffers[0]).pts_ns is None
    assert_same(poses_of(one.buffers[0]), detector(picture()))
    assert heard == [(Gst.CLOCK_TIME_NONE, None)]


def test_signal_message_and_meta_say_the_same(playing, picture):
    from posesdk.gst.bindings import Gst

    heard = []
    one = playing(mode="sync", messages=True, stream_id="door")
    one.element.connect("poses", lambda element, pts, text: heard.append(json.loads(text)))
    push_all(one, (picture(), 5 * FRAME))
    (message,) = one.messages(Gst.MessageType.ELEMENT)
    structure = message.get_structure()
    assert structure.get_name() == "logocappose"
    assert json.loads(structure.get_value("json")) == heard[0]
    carried = record_of(one.buffers[0]).to_dict()
    assert heard[0]["persons"] == carried["persons"] == poses_of(one.buffers[0]).to_dict()["persons"]
    assert heard[0]["source"] == "door"
    assert heard[0]["stream"] == {"pts_ns": 5 * FRAME, "age_ns": 0, "fresh": True}


def test_nothing_is_posted_unless_asked(playing, picture):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    push_all(one, (picture(), 0))
    assert one.messages(Gst.MessageType.ELEMENT) == []


def test_attach_none_leaves_frames_without_poses(playing, picture):
    one = playing(mode="sync", attach="none", messages=True)
    push_all(one, (picture(), 0))
    assert record_of(one.buffers[0]) is None
    assert stats_of(one)["inferred"] == 1


def test_draw_shows_the_skeletons_and_nothing_else(playing, picture, every_bundle):
    from posesdk.draw import draw_poses

    one = playing(model=str(every_bundle), mode="sync", format="BGR", draw=True, keypoint_threshold=0.0)
    push_all(one, (picture(), 0))
    drawn = np.frombuffer(pixels_of(one.buffers[0]), np.uint8).reshape(64, 96, 3)
    expected = draw_poses(picture(), replace(poses_of(one.buffers[0]), keypoint_threshold=0.0))
    assert (expected != picture()).any()
    np.testing.assert_array_equal(drawn, expected)


def test_the_keypoint_threshold_decides_what_is_drawn(playing, picture):
    one = playing(mode="sync", format="BGR", draw=True, keypoint_threshold=1.0)
    push_all(one, (picture(), 0))
    assert len(poses_of(one.buffers[0])) > 0
    assert pixels_of(one.buffers[0]) == picture().tobytes()


def test_drawing_leaves_a_branch_that_shares_the_frame_untouched(playing, picture):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync", format="BGR", draw=True, keypoint_threshold=0.0)
    shared = one.make_buffer(picture(), 0)  # this reference stands for the other branch of a tee
    assert one.source.push(shared) == Gst.FlowReturn.OK
    assert pixels_of(shared) == picture().tobytes()
    assert record_of(shared) is None
    assert pixels_of(one.buffers[0]) != picture().tobytes()


def test_formats_may_change_in_the_middle(playing, picture, model, detector):
    one = playing(mode="sync", format="RGB", size=(640, 480))
    for name, size in (("RGB", (640, 480)), ("RGB", (800, 600)), ("NV12", (320, 240)), ("GRAY8", (96, 64))):
        assert one.set_format(name, *size)
        push_all(one, (picture(4, *size), 0))
        found = poses_of(one.buffers[-1])
        assert found.image_size == (size[1], size[0])
        assert_same(found, detector(model.seen))
    assert [event.type.value_nick for event in one.events].count("caps") == 4


def test_gaps_are_not_inferred(playing, picture, model):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync")
    before = model.runs
    push_all(one, (picture(), 0), flags=[Gst.BufferFlags.GAP])
    assert model.runs == before
    assert record_of(one.buffers[0]) is None
    push_all(one, (picture(), FRAME))
    push_all(one, (picture(), 2 * FRAME), flags=[Gst.BufferFlags.GAP])
    assert model.runs == before + 1
    assert [record_of(buffer).fresh for buffer in one.buffers[1:]] == [True, False]
    assert stats_of(one)["skipped"] == 2


def test_one_frame_of_the_interval_is_inferred_and_the_others_carry_its_poses(playing, picture, model):
    one = playing(mode="sync", interval=3)
    before = model.runs
    push_all(one, *((picture(seed), seed * FRAME) for seed in range(7)))
    assert model.runs - before == 3
    records = [record_of(buffer) for buffer in one.buffers]
    assert [record.fresh for record in records] == [True, False, False, True, False, False, True]
    assert [record.age_ns for record in records] == [0, FRAME, 2 * FRAME, 0, FRAME, 2 * FRAME, 0]
    counts = stats_of(one)
    assert (counts["frames"], counts["inferred"], counts["skipped"], counts["dropped"]) == (7, 3, 4, 0)


def test_a_discontinuity_starts_the_interval_anew(playing, picture):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync", interval=3)
    push_all(one, (picture(0), 0), (picture(1), FRAME))
    push_all(one, (picture(2), 2 * FRAME), flags=[Gst.BufferFlags.DISCONT])
    push_all(one, (picture(3), 3 * FRAME), (picture(4), 4 * FRAME), (picture(5), 5 * FRAME))
    assert [record_of(buffer).fresh for buffer in one.buffers] == [True, False, True, False, False, True]


def test_the_interval_may_change_while_playing(playing, picture):
    one = playing(mode="sync", interval=2)
    push_all(one, (picture(0), 0), (picture(1), FRAME))
    one.element.set_property("interval", 1)
    push_all(one, (picture(2), 2 * FRAME), (picture(3), 3 * FRAME))
    assert [record_of(buffer).fresh for buffer in one.buffers] == [True, False, True, True]


def test_poses_older_than_the_largest_age_are_not_attached(playing, picture):
    one = playing(mode="sync", interval=100, max_age=2 * FRAME)
    push_all(one, *((picture(0), index * FRAME) for index in range(5)))
    assert [record_of(buffer) is not None for buffer in one.buffers] == [True, True, True, False, False]
    one.element.set_property("max-age", 10 * FRAME)
    push_all(one, (picture(0), 5 * FRAME))
    assert record_of(one.buffers[-1]).age_ns == 5 * FRAME


def test_the_score_threshold_may_change_while_playing(playing, picture, detector):
    everybody = detector.detect_all(picture())
    middle = float(np.median(everybody.scores))
    one = playing(mode="sync", score_threshold=0.0)
    push_all(one, (picture(), 0))
    one.element.set_property("score-threshold", middle)
    push_all(one, (picture(), FRAME))
    one.element.set_property("score-threshold", 1.0)
    push_all(one, (picture(), 2 * FRAME))
    counts = [len(poses_of(buffer)) for buffer in one.buffers]
    assert counts == [len(everybody), (everybody.scores >= np.float32(middle)).sum(), 0]
    assert 0 < counts[1] < counts[0]


def test_the_most_people_may_change_while_playing(playing, picture, detector):
    one = playing(mode="sync", max_people=5)
    push_all(one, (picture(), 0))
    one.element.set_property("max-people", 2)
    push_all(one, (picture(), FRAME))
    assert [len(poses_of(buffer)) for buffer in one.buffers] == [5, 2]


def test_a_setting_of_the_model_is_refused_while_it_runs(harness, picture):
    from posesdk.gst.bindings import Gst

    one = harness(mode="sync", stream_id="before")
    one.start()
    one.set_format("RGB", 96, 64)
    for name, value in (("mode", "skip"), ("model", "other"), ("threads", 3), ("latency-report", False)):
        old = one.element.get_property(name)
        one.element.set_property(name, value)
        (warning,) = one.messages(Gst.MessageType.WARNING)
        error, _ = warning.parse_warning()
        assert error.matches(Gst.LibraryError.quark(), Gst.LibraryError.SETTINGS)
        assert name in error.message
        assert one.element.get_property(name) == old
    one.element.set_property("mode", "sync")  # what it is already
    assert one.messages(Gst.MessageType.WARNING) == []
    one.stop()
    one.element.set_property("stream-id", "after")
    assert one.element.get_property("stream-id") == "after"


def test_statistics_name_what_is_used_and_outlast_the_run(playing, picture):
    one = playing(mode="sync")
    push_all(one, *((picture(seed), seed * FRAME) for seed in range(3)))
    counts = stats_of(one)
    assert (counts["frames"], counts["inferred"], counts["mode"], counts["runtime"]) == (3, 3, "sync", "onnxruntime")
    assert counts["persons"] == sum(len(poses_of(buffer)) for buffer in one.buffers)
    assert 0 < counts["infer_ms_p50"] <= counts["infer_ms_p95"]
    one.stop()
    assert stats_of(one)["frames"] == 3


def test_the_latency_of_a_waiting_element_is_what_a_frame_takes(playing, picture):
    from posesdk.gst.bindings import Gst

    one = playing(mode="sync", live=True, latency=(FRAME, 3 * FRAME))
    push_all(one, (picture(), 0))
    live, least, most = one.query_latency()
    assert live
    assert least - FRAME == most - 3 * FRAME > 0
    assert len(one.messages(Gst.MessageType.LATENCY)) >= 1


@pytest.mark.parametrize("settings", [{"mode": "skip"}, {"mode": "sync", "latency_report": False}])
def test_an_element_that_does_not_wait_or_does_not_tell_adds_no_latency(playing, picture, settings, eventually):
    one = playing(live=True, latency=(FRAME, 3 * FRAME), **settings)
    push_all(one, (picture(), 0))
    eventually(lambda: stats_of(one)["inferred"] == 1)
    assert one.query_latency() == (True, FRAME, 3 * FRAME)
