"""`logocapoverlay`: which frames it draws on, what it draws there, and which it leaves alone."""

import sys

import cv2
import numpy as np
import pytest

from posesdk.draw import draw_poses
from posesdk.gst import why_unavailable
from posesdk.poses import Poses

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

FORMATS = ("RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "NV12", "I420", "GRAY8")
MS = 1_000_000
NONE = 2**64 - 1
WIDTH, HEIGHT = 160, 120


def people(count=2, width=WIDTH, height=HEIGHT, seed=1) -> Poses:
    random = np.random.default_rng(seed)
    centers = random.uniform(0.3, 0.7, (count, 1, 2))
    return Poses(
        keypoints=(centers + random.normal(0, 0.1, (count, 17, 2))) * (width, height),
        keypoint_scores=random.uniform(0.2, 0.8, (count, 17)),
        scores=np.linspace(0.9, 0.5, count),
        image_size=(height, width),
        keypoint_threshold=0.3,
    )


def picture(width=WIDTH, height=HEIGHT):
    return np.random.default_rng(5).integers(90, 160, (height, width, 3), np.uint8)


@pytest.fixture
def overlay(gst, harness):
    """`overlay(format="BGR", size=(160, 120), **properties)`: a playing PadHarness around a logocapoverlay."""

    def make(format="BGR", size=(WIDTH, HEIGHT), **properties):
        one = harness("logocapoverlay", **properties)
        assert one.start() == gst.StateChangeReturn.SUCCESS
        assert one.set_format(format, *size)
        return one

    return make


def attach(buffer, poses, pts=None):
    from posesdk.gst.meta import attach_record
    from posesdk.gst.record import PoseRecord

    attach_record(buffer, PoseRecord.from_poses(poses, pts_ns=pts, runtime="none"), frozenset({"custom"}))
    return buffer


def bytes_of(buffer):
    return buffer.extract_dup(0, buffer.get_size())


def bgr_of(buffer, width=WIDTH, height=HEIGHT):
    return np.frombuffer(bytes_of(buffer), np.uint8).reshape(height, width, 3)


def push(one, poses=None, pts=NONE, frame=None, **more):
    """Pushes a frame, with poses or without; returns what comes out."""
    from posesdk.gst.bindings import Gst

    frame = picture() if frame is None else frame
    buffer = one.make_buffer(frame, pts, **more)
    if poses is not None:
        attach(buffer, poses)
    before = len(one.buffers)
    flow = one.source.push(buffer)
    assert flow == Gst.FlowReturn.OK, [message.parse_error() for message in one.messages(Gst.MessageType.ERROR)]
    assert len(one.buffers) == before + 1
    return one.buffers[-1]


def is_drawn(buffer):
    return not np.array_equal(bgr_of(buffer), picture())


def test_a_frame_is_drawn_on_as_the_sdk_draws(overlay):
    out = push(overlay(), people())
    assert np.array_equal(bgr_of(out), draw_poses(picture(), people()))


@pytest.mark.parametrize("padding", [None, 13])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (161, 121)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_drawn_on_as_its_picture(overlay, name, size, padding):
    from pad_harness import to_planes
    from posesdk.gst.bindings import GstVideo
    from posesdk.gst.frames import plane_views
    from posesdk.gst.layout import layout_of

    one, poses = overlay(format=name, size=size), people(1, *size)
    out = push(one, poses, frame=picture(*size), padding=padding)
    layout = layout_of(out, GstVideo.VideoInfo.new_from_caps(one.format))
    found = plane_views(bytes_of(out), layout)[0].reshape(size[1], -1).astype(int)
    before = to_planes(picture(*size), name)[0]
    if name == "GRAY8":  # white is 255 there
        expected = cv2.cvtColor(draw_poses(cv2.cvtColor(before, cv2.COLOR_GRAY2BGR), poses), cv2.COLOR_BGR2GRAY)
    else:
        expected = to_planes(draw_poses(picture(*size), poses), name)[0]
    np.testing.assert_allclose(found, expected, atol=6)
    assert np.abs(found - before).max() > 40


def test_poses_are_scaled_to_the_frame_that_carries_them(overlay):
    small, large = (WIDTH, HEIGHT), (2 * WIDTH, HEIGHT // 2 * 3)
    one, poses = overlay(size=large), people(2, *small)
    out = push(one, poses, frame=picture(*large))
    moved = (poses.keypoints + 0.5) * (np.array(large) / small) - 0.5
    scaled = Poses(
        keypoints=moved,
        keypoint_scores=poses.keypoint_scores,
        scores=poses.scores,
        image_size=large[::-1],
        keypoint_threshold=0.3,
    )
    off = np.abs(bgr_of(out, *large).astype(int) - draw_poses(picture(*large), scaled))
    assert (off > 0).mean() < 0.001  # where rounding to 0.001 pixels changes a sixteenth of a pixel


def test_poses_stay_for_as_long_as_the_time_stamps_say(overlay):
    one = overlay()
    assert is_drawn(push(one, people(), 1000 * MS))
    drawn = [is_drawn(push(one, None, pts)) for pts in (1001 * MS, 1200 * MS, 1200 * MS + 1, 1100 * MS)]
    assert drawn == [True, True, False, False]


@pytest.mark.parametrize(
    ("expire", "pts", "drawn"),
    [
        (0, 1000 * MS, True),
        (0, 1001 * MS, False),
        (NONE, 10**15, True),
        (NONE, NONE, True),
        (200 * MS, NONE, False),
        (200 * MS, 999 * MS, False),
        (50 * MS, 1051 * MS, False),
    ],
)
def test_how_long_poses_stay_can_be_set(overlay, expire, pts, drawn):
    one = overlay(expire_overlay=expire)
    push(one, people(), 1000 * MS)
    assert is_drawn(push(one, None, pts)) is drawn


def test_poses_of_nobody_take_the_place_of_those_of_somebody(overlay):
    one = overlay()
    push(one, people(), 0)
    assert not is_drawn(push(one, people(0), MS))
    assert not is_drawn(push(one, None, 2 * MS))


def test_a_flush_forgets_the_poses(overlay):
    from posesdk.gst.bindings import Gst

    one = overlay(expire_overlay=NONE)
    push(one, people(), 0)
    one.send(Gst.Event.new_flush_start())
    one.send(Gst.Event.new_flush_stop(True))
    one.send_segment()
    assert not is_drawn(push(one, None, MS))
    assert is_drawn(push(one, people(), 2 * MS))


def test_poses_outlive_a_change_of_format(overlay):
    one = overlay(format="NV12", size=(WIDTH, HEIGHT))
    push(one, people(), 0)
    assert one.set_format("BGR", 2 * WIDTH, 2 * HEIGHT)
    out = push(one, None, MS, frame=picture(2 * WIDTH, 2 * HEIGHT))
    assert bgr_of(out, 2 * WIDTH, 2 * HEIGHT).shape == (240, 320, 3)
    assert not np.array_equal(bgr_of(out, 2 * WIDTH, 2 * HEIGHT), picture(2 * WIDTH, 2 * HEIGHT))


def test_properties_count_from_the_next_frame(overlay):
    one, poses, changes = overlay(), people(), {"boxes": True, "scores": True}
    plain = bgr_of(push(one, poses))
    for name, value in changes.items():
        one.element.set_property(name, value)
    assert np.array_equal(bgr_of(push(one, poses)), draw_poses(picture(), poses, boxes=True, scores=True))
    for name in changes:
        one.element.set_property(name, False)
    one.element.set_property("keypoint-threshold", 0.0)
    assert not np.array_equal(bgr_of(push(one, poses)), plain)
    one.element.set_property("keypoint-threshold", 1.0)
    assert not is_drawn(push(one, poses))
    one.element.set_property("keypoint-threshold", -1.0)
    assert np.array_equal(bgr_of(push(one, poses)), plain)
    assert one.element.get_property("keypoint-threshold") == -1


@pytest.mark.parametrize("poses", [None, people(0)], ids=["no poses", "nobody"])
def test_a_frame_without_anything_to_draw_passes_itself(overlay, poses):
    one = overlay()
    push(one, people(), 0)  # drawing before does not keep the next one from passing
    buffer = one.make_buffer(picture(), 10**12)
    if poses is not None:
        attach(buffer, poses)
    one.source.push(buffer)
    assert hash(one.buffers[-1]) == hash(buffer)  # the address


def test_a_frame_that_somebody_else_holds_is_not_drawn_on(overlay):
    one = overlay()
    buffer = attach(one.make_buffer(picture(), 0), people())
    one.source.push(buffer)
    assert is_drawn(one.buffers[-1])
    assert not is_drawn(buffer)


def errors_of(one):
    from posesdk.gst.bindings import Gst

    return [message.parse_error() for message in one.messages(Gst.MessageType.ERROR)]


def test_poses_that_cannot_be_read_are_an_error_on_the_bus(overlay):
    from posesdk.gst.bindings import Gst

    one = overlay()
    buffer = attach(one.make_buffer(picture(), 0), people())
    empty = Gst.Buffer.new_wrapped(bytes_of(buffer))
    empty.add_custom_meta("LogocapPoseMeta")
    assert one.source.push(empty) == Gst.FlowReturn.ERROR
    ((error, debug),) = errors_of(one)
    assert error.matches(Gst.StreamError.quark(), Gst.StreamError.FAILED)
    assert "reading LogocapPoseMeta: expected version 1" in error.message
    assert "Traceback" in debug
    assert not one.buffers


def test_a_short_frame_is_an_error_on_the_bus(overlay):
    from posesdk.gst.bindings import Gst

    one = overlay()
    short = Gst.Buffer.new_wrapped(bytes_of(one.make_buffer(picture()))[:-1])
    assert one.source.push(attach(short, people())) == Gst.FlowReturn.ERROR
    ((error, _),) = errors_of(one)
    assert error.matches(Gst.StreamError.quark(), Gst.StreamError.FAILED)
    assert "57599 bytes is too short for BGR 160x120" in error.message


def test_a_missing_package_is_an_error_on_the_bus(overlay, monkeypatch):
    from posesdk.gst.bindings import Gst

    one = overlay()
    one.stop()
    monkeypatch.setitem(sys.modules, "posesdk.gst.painter", None)
    assert one.start() == Gst.StateChangeReturn.FAILURE
    ((error, _),) = errors_of(one)
    assert error.matches(Gst.LibraryError.quark(), Gst.LibraryError.INIT)
    assert "cannot start logocapoverlay" in error.message
    monkeypatch.undo()
    assert one.start() == Gst.StateChangeReturn.SUCCESS


def test_a_stopped_element_has_forgotten_the_poses(overlay):
    one = overlay(expire_overlay=NONE)
    push(one, people(), 0)
    one.stop()
    one.start()
    assert one.set_format("BGR", WIDTH, HEIGHT)
    assert not is_drawn(push(one, None, MS))


@pytest.fixture
def run_pipeline():
    """`run_pipeline(text, buffers, caps)`: pushes buffers into its appsrc `in`; the samples of each appsink by name."""
    import posesdk.gst
    from posesdk.gst.bindings import Gst

    posesdk.gst.register()
    made = []

    def run(text, buffers, caps):
        pipeline = Gst.parse_launch(text)
        made.append(pipeline)
        source = pipeline.get_by_name("in")
        source.set_property("caps", Gst.Caps.from_string(caps))
        sinks = [element for element in pipeline.iterate_sinks()]
        pipeline.set_state(Gst.State.PLAYING)
        for buffer in buffers:
            assert source.emit("push-buffer", buffer) == Gst.FlowReturn.OK
        source.emit("end-of-stream")
        found = {}
        for sink in sinks:
            samples = iter(lambda sink=sink: sink.emit("try-pull-sample", 20 * Gst.SECOND), None)
            found[sink.get_name()] = [sample.get_buffer() for sample in samples]
        return found

    yield run
    for pipeline in made:
        pipeline.set_state(Gst.State.NULL)


CAPS = f"video/x-raw,format=BGR,width={WIDTH},height={HEIGHT},framerate=30/1"
SINK = "appsink sync=false max-buffers=100"


def frame_buffer(frame, poses=None, pts=0):
    from posesdk.gst.bindings import Gst

    buffer = Gst.Buffer.new_wrapped(frame.tobytes())
    buffer.pts = pts
    return buffer if poses is None else attach(buffer, poses)


def test_the_other_branch_of_a_tee_keeps_its_bytes(run_pipeline):
    branches = f"t. ! queue ! logocapoverlay ! {SINK} name=drawn t. ! queue ! {SINK} name=plain"
    text = f"appsrc name=in format=time ! tee name=t {branches}"
    buffers = [frame_buffer(picture(), people() if index % 2 else None, index * 10**9) for index in range(6)]
    found = run_pipeline(text, buffers, CAPS)
    assert [is_drawn(buffer) for buffer in found["drawn"]] == [False, True] * 3
    assert [is_drawn(buffer) for buffer in found["plain"]] == [False] * 6


def test_skeletons_fit_the_people_behind_a_scaler_and_a_converter(run_pipeline):
    text = (
        "appsrc name=in format=time ! videoscale method=nearest-neighbour ! video/x-raw,width=320,height=240 ! "
        "videoconvert ! video/x-raw,format=BGRx ! logocapoverlay ! videoconvert ! video/x-raw,format=BGR ! "
        f"{SINK} name=out"
    )
    (buffer,) = run_pipeline(text, [frame_buffer(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), people())], CAPS)["out"]
    found = bgr_of(buffer, 320, 240)
    drawn = cv2.resize(draw_poses(np.full((240, 320, 3), 90, np.uint8), scaled_twice(people())), (320, 240))
    assert np.abs(found.astype(int) - drawn).mean() < 0.1
    assert (drawn != 90).any()


def scaled_twice(poses):
    return Poses(
        keypoints=poses.keypoints * 2 + 0.5,
        keypoint_scores=poses.keypoint_scores,
        scores=poses.scores,
        image_size=(240, 320),
        keypoint_threshold=poses.keypoint_threshold,
    )


def test_the_element_is_freed(overlay):
    import gc

    from posesdk.gst.bindings import Gst

    freed = []
    pipeline = Gst.parse_launch(
        "videotestsrc num-buffers=2 ! video/x-raw,format=BGR ! logocapoverlay name=o ! fakesink"
    )
    pipeline.get_by_name("o").weak_ref(lambda: freed.append(True))
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(20 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    assert message.type == Gst.MessageType.EOS
    pipeline.set_state(Gst.State.NULL)
    del message, pipeline
    gc.collect()
    assert freed
