import gc
import json
import sys
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from posesdk.gst import why_unavailable
from posesdk.poses import Poses

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

CUSTOM = frozenset({"custom"})
FRAME = bytes(64 * 64 * 3 // 2)
RAW = "video/x-raw,format=I420,width=64,height=64,framerate=30/1"


@pytest.fixture
def sidecar(gst, harness) -> Callable:
    """`sidecar()`: a PadHarness around a logocapposejson that plays, before any event."""

    def make():
        one = harness("logocapposejson")
        assert one.start() == gst.StateChangeReturn.SUCCESS
        return one

    return make


@pytest.fixture
def run(gst) -> Iterator[Callable]:
    """`run(text, buffers)`: plays `appsrc ! text` with those buffers until its end; gives the pipeline."""
    pipelines = []

    def play(text, buffers):
        pipeline = gst.parse_launch(f"appsrc name=source format=time caps={RAW} ! {text}")
        pipelines.append(pipeline)
        pipeline.set_state(gst.State.PLAYING)
        source = pipeline.get_by_name("source")
        for buffer in buffers:
            source.emit("push-buffer", buffer)
        source.emit("end-of-stream")
        message = pipeline.get_bus().timed_pop_filtered(20 * gst.SECOND, gst.MessageType.EOS | gst.MessageType.ERROR)
        assert message is not None
        assert message.type == gst.MessageType.EOS, message.parse_error()
        return pipeline

    play.forget = pipelines.clear
    yield play
    for one in pipelines:
        one.set_state(gst.State.NULL)


def record_of(index, count=2):
    from posesdk.gst.record import PoseRecord

    points = np.random.default_rng(index).uniform(size=(count, 17, 3))
    return PoseRecord(
        keypoints=points, scores=[0.75] * count, width=64, height=64, index=index, pts_ns=index * 10**9, source="cam"
    )


def frame(gst, index, record=None):
    from posesdk.gst.meta import attach_record

    buffer = gst.Buffer.new_wrapped(FRAME)
    buffer.pts, buffer.duration = index * gst.SECOND, gst.SECOND // 2
    if record is not None:
        attach_record(buffer, record, CUSTOM)
    return buffer


def text_of(buffer):
    return buffer.extract_dup(0, buffer.get_size()).decode()


def kinds(events):
    return [event.type.value_nick for event in events]


def test_line_is_the_records_json(gst, sidecar):
    one, record = sidecar(), record_of(3)
    one.set_format("I420", 64, 64)
    assert one.source.push(frame(gst, 3, record)) == gst.FlowReturn.OK
    (line,) = one.buffers
    assert text_of(line) == record.to_json() + "\n"
    assert (line.pts, line.duration) == (3 * gst.SECOND, gst.SECOND // 2)


def test_nobody_in_sight_gives_a_line_without_persons(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    one.source.push(frame(gst, 0, record_of(0, count=0)))
    (line,) = one.buffers
    assert json.loads(text_of(line))["persons"] == []


def test_frame_without_poses_gives_its_time_only(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    assert one.source.push(frame(gst, 2)) == gst.FlowReturn.OK
    assert one.buffers == []
    assert kinds(one.events)[-1] == "gap"
    assert tuple(one.events[-1].parse_gap()) == (2 * gst.SECOND, gst.SECOND // 2)


def test_frame_without_poses_and_time_gives_nothing(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    before = len(one.events)
    assert one.source.push(gst.Buffer.new_wrapped(FRAME)) == gst.FlowReturn.OK
    assert (one.buffers, len(one.events)) == ([], before)


def test_events_come_in_order_and_caps_once(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    one.send(gst.Event.new_tag(gst.TagList.new_empty()))
    one.source.push(frame(gst, 0, record_of(0)))
    one.set_format("RGB", 96, 64)
    one.source.push(frame(gst, 1, record_of(1)))
    one.send(gst.Event.new_gap(2 * gst.SECOND, gst.SECOND))
    one.send(gst.Event.new_eos())
    assert kinds(one.events) == ["stream-start", "caps", "segment", "tag", "gap", "eos"]
    assert one.events[1].parse_caps().to_string() == "application/x-json"
    assert len(one.buffers) == 2


def test_stream_without_caps_has_them_as_lines(gst, sidecar):
    one = sidecar()
    one.send(gst.Event.new_stream_start("bytes"))
    one.send_segment()
    one.source.push(frame(gst, 0, record_of(0)))
    assert kinds(one.events) == ["stream-start", "caps", "segment"]
    assert len(one.buffers) == 1


def test_lines_go_on_after_a_flush(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    one.send(gst.Event.new_flush_start())
    assert one.source.push(frame(gst, 0, record_of(0))) == gst.FlowReturn.FLUSHING
    one.send(gst.Event.new_flush_stop(True))
    one.send_segment()
    assert one.source.push(frame(gst, 1, record_of(1))) == gst.FlowReturn.OK
    assert kinds(one.events)[-3:] == ["flush-start", "flush-stop", "segment"]
    assert len(one.buffers) == 1


def test_events_go_upstream(gst, sidecar):
    one = sidecar()
    one.set_format("I420", 64, 64)
    one.sink.push_event(gst.Event.new_qos(gst.QOSType.UNDERFLOW, 1.5, 10, 20))
    assert "qos" in kinds(one.upstream)


def test_latency_and_position_are_those_of_the_stream(gst):
    pipeline = gst.parse_launch(
        "videotestsrc is-live=true num-buffers=5 ! video/x-raw,framerate=25/1 ! logocapposejson name=json ! fakesink"
    )
    try:
        pipeline.set_state(gst.State.PLAYING)
        message = pipeline.get_bus().timed_pop_filtered(20 * gst.SECOND, gst.MessageType.EOS | gst.MessageType.ERROR)
        assert message.type == gst.MessageType.EOS
        query = gst.Query.new_latency()
        pad = pipeline.get_by_name("json").get_static_pad("src")
        assert pad.query(query)
        live, least, _ = query.parse_latency()
        assert (live, least) == (True, gst.SECOND // 25)
        answered, position = pad.query_position(gst.Format.TIME)
        assert answered
        assert position >= 4 * gst.SECOND // 25
    finally:
        pipeline.set_state(gst.State.NULL)


def test_sink_prerolls_before_anybody_is_found(gst):
    pipeline = gst.parse_launch("videotestsrc ! logocapposejson ! fakesink sync=true")
    try:
        pipeline.set_state(gst.State.PAUSED)
        result, state, _ = pipeline.get_state(20 * gst.SECOND)
        assert (result, state) == (gst.StateChangeReturn.SUCCESS, gst.State.PAUSED)
    finally:
        pipeline.set_state(gst.State.NULL)


@pytest.mark.parametrize(
    "text", ["videoconvert ! video/x-raw,format=RGB", "vp8enc deadline=1", "openh264enc ! h264parse"]
)
def test_file_holds_a_line_per_frame_with_poses(gst, run, tmp_path, text):
    for part in text.replace("!", " ").split():
        if part.isalnum() and gst.ElementFactory.find(part) is None:
            pytest.skip(f"needs the GStreamer element {part}, which is not installed")
    path = tmp_path / "poses.jsonl"
    records = [record_of(index) for index in range(4)]
    frames = [frame(gst, index, None if index == 2 else records[index]) for index in range(4)]
    run(f"{text} ! logocapposejson ! filesink location={path}", frames)
    lines = path.read_text().splitlines()
    assert lines == [records[index].to_json() for index in (0, 1, 3)]
    assert [Poses.from_dict(json.loads(line)).frame.index for line in lines] == [0, 1, 3]


def test_video_goes_beside_the_lines(gst, run, tmp_path):
    path = tmp_path / "poses.jsonl"
    frames = [frame(gst, index, record_of(index)) for index in range(3)]
    pipeline = run(
        f"tee name=t t. ! queue ! logocapposejson ! filesink location={path} "
        "t. ! queue ! appsink name=video sync=false wait-on-eos=false",
        frames,
    )
    video = pipeline.get_by_name("video")
    times = [video.emit("try-pull-sample", 20 * gst.SECOND).get_buffer().pts for _ in range(3)]
    assert times == [index * gst.SECOND for index in range(3)]
    assert len(path.read_text().splitlines()) == 3


def test_signal_message_and_line_are_one_text(gst, every_bundle, tmp_path):
    path = tmp_path / "poses.jsonl"
    pipeline = gst.parse_launch(
        f"videotestsrc pattern=smpte num-buffers=3 ! video/x-raw,format=NV12,width=96,height=64 ! "
        f"logocappose name=pose model={every_bundle} runtime=onnxruntime threads=1 mode=sync messages=true "
        f"score-threshold=0 stream-id=cam ! logocapposejson ! filesink location={path}"
    )
    signals, messages = [], []
    pipeline.get_by_name("pose").connect("poses", lambda element, pts, text: signals.append(text))
    wanted = gst.MessageType.ELEMENT | gst.MessageType.EOS | gst.MessageType.ERROR
    try:
        pipeline.set_state(gst.State.PLAYING)
        while message := pipeline.get_bus().timed_pop_filtered(60 * gst.SECOND, wanted):
            if message.type != gst.MessageType.ELEMENT:
                break
            messages.append(message.get_structure().get_string("json"))
        assert message is not None
        assert message.type == gst.MessageType.EOS, message.parse_error()
    finally:
        pipeline.set_state(gst.State.NULL)
    lines = path.read_text().splitlines()
    assert lines == signals == messages
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
    assert all(json.loads(line)["persons"] for line in lines)


def test_damaged_poses_are_an_error_on_the_bus(gst, sidecar, monkeypatch):
    monkeypatch.setattr("posesdk.gst.meta.META_VERSION", 2)
    buffer = frame(gst, 0, record_of(0))
    monkeypatch.undo()
    one = sidecar()
    one.set_format("I420", 64, 64)
    assert one.source.push(buffer) == gst.FlowReturn.ERROR
    error, debug = one.wait_for(gst.MessageType.ERROR).parse_error()
    assert "expected version 1, got 2" in error.message
    assert "Traceback" in debug


def test_missing_package_is_an_error_on_the_bus(gst, monkeypatch):
    from pad_harness import PadHarness

    monkeypatch.setitem(sys.modules, "posesdk.gst.meta", None)
    one = PadHarness(gst.ElementFactory.make("logocapposejson"))
    assert one.start(gst.State.READY) == gst.StateChangeReturn.FAILURE
    error, _ = one.wait_for(gst.MessageType.ERROR).parse_error()
    assert error.matches(gst.LibraryError.quark(), gst.LibraryError.INIT)
    assert "pip install posesdk" in error.message
    one.close()


def test_no_consumer_ends_the_flow(gst):
    from pad_harness import PadHarness

    one = PadHarness(gst.ElementFactory.make("logocapposejson"))
    one.start()
    one.set_format("I420", 64, 64)
    one.element.get_static_pad("src").unlink(one.sink)
    assert one.source.push(frame(gst, 0, record_of(0))) == gst.FlowReturn.NOT_LINKED
    one.close()


def test_element_is_freed(gst, run):
    pipeline = run("logocapposejson name=json ! fakesink", [frame(gst, 0, record_of(0))])
    element, gone = pipeline.get_by_name("json"), []
    element.weak_ref(lambda: gone.append(True))
    shadow = weakref.ref(element)
    pipeline.set_state(gst.State.NULL)
    run.forget()
    del element, pipeline
    gc.collect()
    assert (gone, shadow()) == ([True], None)
