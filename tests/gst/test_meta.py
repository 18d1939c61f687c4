import subprocess
import sys

import numpy as np
import pytest

from posesdk.gst import why_unavailable
from posesdk.poses import FrameInfo
from posesdk.skeleton import COCO_17, CROWDPOSE_14
from random_poses import HAND, random_poses

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

CUSTOM = frozenset({"custom"})


def record_of(*args, pts_ns=480_000_000, **changes):
    from posesdk.gst.record import PoseRecord

    return PoseRecord.from_poses(random_poses(*args, **changes), pts_ns=pts_ns, runtime="onnxruntime")


def carried(record, buffer):
    from posesdk.gst.meta import attach_record, record_from_buffer

    attach_record(buffer, record, CUSTOM)
    return record_from_buffer(buffer)


def equal(one, other):
    import dataclasses

    for entry in dataclasses.fields(one):
        a, b = getattr(one, entry.name), getattr(other, entry.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        else:
            assert a == b, entry.name
    return True


def sent_through(gst, text, records, size=(320, 240)):
    """The buffers that come out of `text`, one I420 frame of that (width, height) with each of the records going in."""
    from posesdk.gst.meta import attach_record

    width, height = size
    caps = f"video/x-raw,format=I420,width={width},height={height},framerate=30/1"
    pipeline = gst.parse_launch(
        f"appsrc name=source caps={caps} format=time ! {text} ! appsink name=sink sync=false max-buffers=100"
    )
    pipeline.set_state(gst.State.PLAYING)
    try:
        for index, record in enumerate(records):
            buffer = gst.Buffer.new_wrapped(bytes([index]) * (width * height * 3 // 2))
            buffer.pts, buffer.duration = index * gst.SECOND // 30, gst.SECOND // 30
            attach_record(buffer, record, CUSTOM)
            pipeline.get_by_name("source").emit("push-buffer", buffer)
        pipeline.get_by_name("source").emit("end-of-stream")
        found = []
        while sample := pipeline.get_by_name("sink").emit("try-pull-sample", 20 * gst.SECOND):
            found.append(sample.get_buffer())
        return found
    finally:
        pipeline.set_state(gst.State.NULL)


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14, HAND])
def test_every_field_comes_back(gst, count, skeleton):
    record = record_of(count, skeleton=skeleton, track_ids=range(count))
    assert equal(carried(record, gst.Buffer.new()), record)


def test_nothing_said_comes_back_as_nothing(gst):
    record = record_of(1, pts_ns=None, frame=FrameInfo())
    found = carried(record, gst.Buffer.new())
    assert equal(found, record)
    assert (found.pts_ns, found.source, found.track_ids) == (None, None, None)


@pytest.mark.parametrize("pts_ns", [0, 2**31 - 1, 2**31, 2**32 + 1, 2**63 + 5])
def test_long_times_come_back(gst, pts_ns):
    record = record_of(1, pts_ns=pts_ns, frame=FrameInfo("cam", 2**40)).aged(2**35)
    found = carried(record, gst.Buffer.new())
    assert (found.pts_ns, found.age_ns, found.index, found.fresh) == (pts_ns, 2**35, 2**40, False)


def test_carried_poses_give_the_same_line(gst):
    record = record_of(5)
    assert carried(record, gst.Buffer.new()).to_json() == record.to_json()


def test_poses_come_in_the_models_own_skeleton(gst):
    from posesdk.gst.meta import attach_record, poses_from_buffer

    buffer = gst.Buffer.new()
    assert poses_from_buffer(buffer) is None
    attach_record(buffer, record_of(3, skeleton=HAND), CUSTOM)
    assert poses_from_buffer(buffer).skeleton == HAND
    assert len(poses_from_buffer(buffer, HAND)) == 3
    with pytest.raises(ValueError, match="expected skeleton 'two-fingers'"):
        poses_from_buffer(buffer, COCO_17)


def test_format_names_the_skeleton(gst):
    from posesdk.gst.meta import META_NAME

    for skeleton, expected in ((COCO_17, "body-pose/coco-17"), (HAND, "body-pose/two-fingers")):
        buffer = gst.Buffer.new()
        carried(record_of(1, skeleton=skeleton), buffer)
        structure = buffer.get_custom_meta(META_NAME).get_structure()
        assert structure.get_string("format") == expected
        assert structure.get_int("num-keypoints").value == len(skeleton)


def test_second_model_takes_the_place_of_the_first(gst):
    buffer = gst.Buffer.new()
    carried(record_of(1, model="first"), buffer)
    assert carried(record_of(2, model="second"), buffer).model == "second"


def test_shared_buffer_is_refused(gst):
    from posesdk.gst.meta import attach_record

    pipeline_sample = gst.Sample.new(gst.Buffer.new(), None, None, None)
    with pytest.raises(ValueError, match="writable"):
        attach_record(pipeline_sample.get_buffer(), record_of(1), CUSTOM)


def test_other_version_is_refused(gst, monkeypatch):
    monkeypatch.setattr("posesdk.gst.meta.META_VERSION", 2)
    buffer = gst.Buffer.new()
    from posesdk.gst.meta import attach_record, record_from_buffer

    attach_record(buffer, record_of(1), CUSTOM)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected version 1, got 2"):
        record_from_buffer(buffer)


def test_damaged_meta_is_refused(gst, monkeypatch):
    import posesdk.gst.meta as meta

    fields = meta._fields(record_of(2))
    for missing in (b"keypoints", b"num-persons", b"timing", b"format", b"width"):
        monkeypatch.setattr(meta, "_fields", lambda record, missing=missing: [f for f in fields if f[0] != missing])
        buffer = gst.Buffer.new()
        meta.attach_record(buffer, record_of(2), CUSTOM)
        with pytest.raises(ValueError, match="missing or damaged"):
            meta.record_from_buffer(buffer)


@pytest.mark.parametrize(
    "text",
    [
        "videoconvert ! video/x-raw,format=RGB",
        "videoscale ! video/x-raw,width=160,height=90",
        "vp8enc deadline=1 ! vp8dec",
        "openh264enc ! h264parse",
    ],
)
def test_poses_stay_on_frames_that_others_change(gst, text):
    from posesdk.gst.meta import record_from_buffer

    for part in text.replace("!", " ").split():
        if part.isalnum() and gst.ElementFactory.find(part) is None:
            pytest.skip(f"needs the GStreamer element {part}, which is not installed")
    records = [record_of(2, pts_ns=index, frame=FrameInfo(None, index)) for index in range(4)]
    found = [record_from_buffer(buffer) for buffer in sent_through(gst, text, records)]
    assert [record.to_json() for record in found] == [record.to_json() for record in records]


def test_poses_of_a_scaled_frame_are_where_its_pixels_are(gst):
    from posesdk.gst.meta import record_from_buffer

    corners = [[[-0.5, -0.5], [319.5, 239.5]]]
    record = record_of(1, 320, 240, HAND, keypoints=corners)
    (buffer,) = sent_through(gst, "videoscale ! video/x-raw,width=160,height=60", [record])
    found = record_from_buffer(buffer)
    np.testing.assert_array_equal(found.to_poses().keypoints, corners)
    np.testing.assert_array_equal(found.to_poses(size=(60, 160)).keypoints, [[[-0.5, -0.5], [159.5, 59.5]]])


def test_process_that_only_reads_stays_silent():
    code = (
        "from posesdk.gst.bindings import Gst\n"
        "from posesdk.gst.meta import poses_from_buffer, record_from_buffer\n"
        "buffer = Gst.Buffer.new()\n"
        "assert record_from_buffer(buffer) is None and poses_from_buffer(buffer) is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_application_may_have_registered_the_name():
    code = (
        "from posesdk.gst.bindings import Gst\n"
        "Gst.Meta.register_custom('LogocapPoseMeta', [], None, None)\n"
        "import posesdk.gst.meta\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
