import ctypes
import math
from types import SimpleNamespace

import numpy as np
import pytest

from posesdk.gst import why_unavailable
from posesdk.poses import Poses
from posesdk.skeleton import COCO_17, Skeleton

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

HAND = Skeleton(name="two-fingers", keypoints=("left_thumb", 'the "index"'), edges=((0, 1),), sigmas=(0.1, 0.2))
INSIDE = [[10.4, 20.6], [29.5, 41.0]]
CUT = [[-7.2, 100.0], [30.0, 500.0]]
OUTSIDE = [[-20.0, 5.0], [-9.0, 50.0]]
BOXES = [[10, 21, 20, 21], [0, 100, 31, 140], None]
"""INSIDE spans 10.9 to 30.0 and 21.1 to 41.5 where the first pixel spans 0 to 1; CUT ends at the frame."""


def record_of(people=(INSIDE, CUT, OUTSIDE), width=320, height=240, model="tiny", skeleton=HAND):
    from posesdk.gst.record import PoseRecord

    count = len(people)
    poses = Poses(
        keypoints=np.array(people, np.float32).reshape(count, len(skeleton), 2),
        keypoint_scores=np.tile([0.75, 0.125] if skeleton is HAND else [0.5] * len(skeleton), (count, 1)),
        scores=np.linspace(0.9, 0.5, count),
        image_size=(height, width),
        skeleton=skeleton,
        model=model,
        keypoint_threshold=0.25,
    )
    return PoseRecord.from_poses(poses, pts_ns=None, runtime="onnxruntime")


def regions(buffer, ids):
    from posesdk.gst.bindings import GstVideo

    return [GstVideo.buffer_get_video_region_of_interest_meta_id(buffer, one) for one in ids]


def test_boxes_are_rounded_outwards_and_end_at_the_frame():
    from posesdk.gst.roi import pixel_boxes

    found = pixel_boxes(record_of()).tolist()
    assert found[:2] == BOXES[:2]
    assert 0 in found[2][2:]


def test_keypoint_lies_in_the_pixel_that_its_rounded_coordinate_names():
    from posesdk.gst.roi import pixel_keypoints

    rng = np.random.default_rng(1)
    points = rng.integers(-20, 8300, (30, 2, 2)) + rng.uniform(-0.49, 0.49, (30, 2, 2))
    points[0] = [[0, 0], [8191, 8191]]
    found = pixel_keypoints(record_of(points, 8192, 8192))
    assert found.tolist() == [[[math.floor(value + 0.5) for value in point] for point in one] for one in points]


def test_whole_coordinates_do_not_slip_into_the_next_pixel():
    from posesdk.gst.roi import pixel_boxes, pixel_keypoints

    for side in (320, 641, 1280, 1919, 4099, 8191):
        points = [[[x - 0.5, x - 0.5], [x + 6.5, x + 6.5]] for x in range(0, side - 7, 61)]
        record = record_of(points, side, side)
        assert pixel_boxes(record).tolist() == [[x, x, 7, 7] for x in range(0, side - 7, 61)]
        assert pixel_keypoints(record)[:, 0, 0].tolist() == list(range(0, side - 7, 61))


def test_nobody_gives_nothing(gst):
    from posesdk.gst.meta import attach_record
    from posesdk.gst.roi import pixel_boxes, pixel_keypoints

    record = record_of(())
    assert pixel_boxes(record).shape == (0, 4)
    assert pixel_keypoints(record).shape == (0, 2, 2)
    attach_record(gst.Buffer.new(), record, frozenset({"roi"}))


def test_regions_hold_the_keypoints_as_dl_streamer_reads_them(gst):
    from posesdk.gst.bindings import GLib
    from posesdk.gst.roi import add_regions

    buffer = gst.Buffer.new()
    record = record_of()
    add_regions(buffer, record, [7, 8, 9])
    found = regions(buffer, (7, 8, 9))
    assert [one and [one.x, one.y, one.w, one.h] for one in found] == BOXES
    assert {GLib.quark_to_string(one.roi_type) for one in found[:2]} == {"person"}
    for person, (x, y, width, height) in enumerate(BOXES[:2]):
        structure = found[person].get_param("keypoints")
        assert structure.get_string("format") == "body-pose/two-fingers"
        assert structure.get_string("model_name") == "tiny"
        assert structure.get_int("precision").value == 10
        data = structure.get_value("data_buffer").get_data_as_bytes().get_data()
        places = np.frombuffer(data, np.float32).reshape(2, 2)
        expected = np.array([INSIDE, CUT][person]) + 0.5
        np.testing.assert_allclose(places * [width, height] + [x, y], expected, atol=1e-3)
        text = structure.to_string()
        assert "dims=(uint)< 2, 2 >" in text
        assert "point_connections=(uint)< 0, 1 >" in text
        assert "confidence=(float)< 0.75, 0.125 >" in text
        assert text.count("thumb_l") == 1


def test_regions_are_scaled_with_their_frames(gst):
    from posesdk.gst.roi import add_regions

    caps = "video/x-raw,format=GRAY8,width=320,height=240,framerate=30/1"
    pipeline = gst.parse_launch(
        f"appsrc name=source caps={caps} ! videoscale ! video/x-raw,width=160,height=60 ! appsink name=sink"
    )
    buffer = gst.Buffer.new_wrapped(bytes(320 * 240))
    add_regions(buffer, record_of(), [7, 8, None])
    try:
        pipeline.set_state(gst.State.PLAYING)
        pipeline.get_by_name("source").emit("push-buffer", buffer)
        sample = pipeline.get_by_name("sink").emit("try-pull-sample", 20 * gst.SECOND)
    finally:
        pipeline.set_state(gst.State.NULL)
    found = [[one.x, one.y, one.w, one.h] for one in regions(sample.get_buffer(), (7, 8))]
    expected = [[x / 2, y / 4, w / 2, h / 4] for x, y, w, h in BOXES[:2]]
    np.testing.assert_allclose(found, expected, atol=1)  # GStreamer rounds down, or to the nearest since 1.29


def test_arrays_of_a_region_have_the_types_that_c_reads(gst):
    """DL Streamer takes dims as uint and scores as float; another type would be a critical warning there."""
    from posesdk.gst.roi import add_regions

    buffer = gst.Buffer.new()
    add_regions(buffer, record_of(np.full((1, 17, 2), 5), skeleton=COCO_17), [1])
    (region,) = regions(buffer, (1,))
    structure = region.get_param("keypoints")
    core, objects = ctypes.CDLL("libgstreamer-1.0.so.0"), ctypes.CDLL("libgobject-2.0.so.0")
    core.gst_structure_get_value.restype = core.gst_value_array_get_value.restype = ctypes.c_void_p
    core.gst_structure_get_value.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    core.gst_value_array_get_value.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    objects.g_value_get_uint.argtypes = objects.g_value_get_float.argtypes = [ctypes.c_void_p]
    objects.g_value_get_string.argtypes = [ctypes.c_void_p]
    objects.g_value_get_float.restype, objects.g_value_get_string.restype = ctypes.c_float, ctypes.c_char_p

    def entry(name, index, read):
        return read(core.gst_value_array_get_value(core.gst_structure_get_value(hash(structure), name), index))

    assert [entry(b"dims", index, objects.g_value_get_uint) for index in (0, 1)] == [17, 2]
    assert entry(b"confidence", 16, objects.g_value_get_float) == 0.5
    assert [entry(b"point_names", index, objects.g_value_get_string) for index in (0, 1, 16)] == [
        b"nose",
        b"eye_l",
        b"ankle_r",
    ]
    assert entry(b"point_connections", 1, objects.g_value_get_uint) == COCO_17.edges[0][1]


def test_missing_analytics_is_explained(gst):
    from posesdk.gst import analytics

    found = analytics.why_unavailable()
    if gst.version()[:2] < (1, 24):
        assert "older than 1.24" in found
        with pytest.raises(RuntimeError, match="attaching analytics metadata"):
            analytics.add_detections(gst.Buffer.new(), record_of())
    elif found is not None:
        assert "gir1.2-gst-plugins-bad-1.0" in found


def test_detections_are_where_the_regions_are(gst):
    from posesdk.gst import analytics
    from posesdk.gst.bindings import GLib
    from posesdk.gst.meta import attach_record

    if (missing := analytics.why_unavailable()) is not None:
        pytest.skip(missing)
    from gi.repository import GstAnalytics

    buffer = gst.Buffer.new()
    record = record_of()
    attach_record(buffer, record, frozenset({"custom", "roi", "analytics"}))
    relations = GstAnalytics.buffer_get_analytics_relation_meta(buffer)
    found = []
    for one in range(20):
        exists, detection = relations.get_od_mtd(one)
        if exists:
            _, *box, score = detection.get_location()
            assert GLib.quark_to_string(detection.get_obj_type()) == "person"
            found.append((box, round(score, 5)))
            (region,) = regions(buffer, (one,))
            assert [region.x, region.y, region.w, region.h] == box
    assert found == [(BOXES[0], 0.9), (BOXES[1], 0.7)]


def test_groups_of_keypoints_are_read_back(gst):
    from posesdk.gst import analytics

    if (missing := analytics.why_unavailable()) is not None:
        pytest.skip(missing)
    from gi.repository import GstAnalytics

    if not hasattr(GstAnalytics, "KeypointMtd"):
        pytest.skip(f"{gst.version_string()} has no groups of keypoints; 1.30 brings them")
    buffer, kinds = gst.Buffer.new(), GstAnalytics.RelTypes
    detections = analytics.add_detections(buffer, record_of())[:2]
    relations = GstAnalytics.buffer_get_analytics_relation_meta(buffer)
    groups = [group for exists, group in map(relations.get_group_mtd, range(20)) if exists]
    assert [group.get_semantic_tag() for group in groups] == ["tiny/body-pose/two-fingers"] * 2
    points = [[(10, 21), (30, 41)], [(-7, 100), (30, 500)]]
    for group, detection, expected in zip(groups, detections, points, strict=True):
        assert relations.get_relation(detection, group.id) & kinds.CONTAIN
        assert relations.get_relation(group.id, detection) & kinds.IS_PART_OF
        members = [group.get_member(index)[1].id for index in range(group.get_member_count())]
        assert relations.get_relation(*members) & kinds.RELATE_TO
        keypoints = [relations.get_keypoint_mtd(member)[1] for member in members]
        assert [tuple(keypoint.get_position())[1:3] for keypoint in keypoints] == expected
        assert [keypoint.get_confidence()[1] for keypoint in keypoints] == [0.75, 0.125]
        assert [keypoint.get_visibility_flags()[1] for keypoint in keypoints] == [1, 0]


class StandIn:
    """The part of GStreamer 1.30's analytics that is written to, with its checks."""

    RelTypes = SimpleNamespace(CONTAIN="contain", IS_PART_OF="is part of")

    def __init__(self):
        self.entries, self.relations = [], []

    def KeypointDimensions(self, value):  # noqa: N802
        assert value == 2
        return value

    def buffer_get_analytics_relation_meta(self, buffer):
        return None

    def buffer_add_analytics_relation_meta(self, buffer):
        return self

    def _add(self, entry):
        self.entries.append(entry)
        return True, SimpleNamespace(id=len(self.entries) - 1)

    def add_od_mtd(self, label, x, y, w, h, score):
        assert all(type(value) is int for value in (x, y, w, h))
        return self._add(("person", [x, y, w, h]))

    def add_keypoints_group(self, tag, dimension, positions, confidences, visibilities, pairs):
        assert len(positions) == dimension * len(confidences) == dimension * len(visibilities)
        assert all(type(value) is int for value in positions + pairs + visibilities)
        return self._add((tag, positions, confidences, visibilities, pairs))

    def set_relation(self, kind, first, second):
        self.relations.append((kind, first, second))


def test_nobody_gives_no_detections(gst, monkeypatch):
    from posesdk.gst import analytics

    stand_in = StandIn()
    monkeypatch.setattr(analytics, "_namespace", lambda: stand_in)
    assert analytics.add_detections(gst.Buffer.new(), record_of(())) == []
    assert (stand_in.entries, stand_in.relations) == ([], [])


@pytest.mark.parametrize(("model", "tag"), [("tiny", "tiny/body-pose/two-fingers"), ("", "body-pose/two-fingers")])
def test_keypoint_groups_hang_on_their_detections(gst, monkeypatch, model, tag):
    from posesdk.gst import analytics

    stand_in = StandIn()
    monkeypatch.setattr(analytics, "_namespace", lambda: stand_in)
    ids = analytics.add_detections(gst.Buffer.new(), record_of(model=model))
    assert ids == [0, 1, None]
    first, second = ([tag, points, [0.75, 0.125], [1, 0], [0, 1]] for points in ([10, 21, 30, 41], [-7, 100, 30, 500]))
    assert stand_in.entries == [("person", BOXES[0]), ("person", BOXES[1]), tuple(first), tuple(second)]
    assert stand_in.relations == [
        ("contain", 0, 2),
        ("is part of", 2, 0),
        ("contain", 1, 3),
        ("is part of", 3, 1),
    ]
