import json

import numpy as np
import pytest

from posesdk.gst.record import PoseRecord
from posesdk.poses import Poses
from posesdk.skeleton import COCO_17, CROWDPOSE_14
from random_poses import HAND, random_poses


def poses(*args, **changes):
    return random_poses(*args, margin=20, **changes)


def record_of(found, pts_ns=480_000_000):
    return PoseRecord.from_poses(found, pts_ns=pts_ns, runtime="onnxruntime")


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (641, 361), (1280, 720), (8192, 8192)])
def test_pixels_come_back_to_a_thousandth(count, width, height):
    found = poses(count, width, height)
    back = record_of(found).to_poses()
    assert back.keypoints.shape == found.keypoints.shape
    assert np.abs(back.keypoints.astype(np.float64) - found.keypoints).max(initial=0) < 0.001
    np.testing.assert_array_equal(back.keypoint_scores, found.keypoint_scores)
    np.testing.assert_array_equal(back.scores, found.scores)
    assert (back.image_size, back.frame, back.timing) == (found.image_size, found.frame, found.timing)


def test_the_frame_spans_zero_to_one():
    edges = [[-0.5, -0.5], [639.5, 359.5]]  # the outer corners of the first and the last pixel
    centers = [[0, 0], [639, 359]]
    found = poses(2, 640, 360, HAND, keypoints=[edges, centers], scores=[0.9, 0.8])
    keypoints = record_of(found).keypoints
    np.testing.assert_array_equal(keypoints[0, :, :2], [[0, 0], [1, 1]])
    np.testing.assert_allclose(keypoints[1, :, :2], [[0.5 / 640, 0.5 / 360], [1 - 0.5 / 640, 1 - 0.5 / 360]], rtol=1e-6)
    np.testing.assert_array_equal(record_of(found).boxes[0], [0, 0, 1, 1])


def test_a_scaled_frame_gives_scaled_pixels():
    found = poses(1, 1280, 720, HAND, keypoints=[[[-0.5, -0.5], [639.5, 359.5]]], scores=[0.9])
    scaled = record_of(found).to_poses(size=(360, 640))
    np.testing.assert_array_equal(scaled.keypoints[0], [[-0.5, -0.5], [319.5, 179.5]])
    assert scaled.image_size == (360, 640)


def test_json_holds_the_digits_of_the_pixels():
    found = poses(1, 1280, 720, HAND, keypoints=[[[123.45, 0.0], [1279.125, 719]]], scores=[0.9])
    (person,) = record_of(found).to_dict()["persons"]
    assert [point[:2] for point in person["keypoints"]] == [[123.45, 0.0], [1279.125, 719.0]]
    assert person["box"] == [123.45, 0.0, 1279.125, 719.0]


def test_a_pixel_at_the_origin_has_no_sign():
    found = poses(1, 641, 361, HAND, keypoints=[[[-1e-5, 0], [5, 5]]], scores=[0.9])
    assert "-0.0" not in record_of(found).to_json()


def test_pixels_of_a_record_make_the_same_record_text_again():
    found = record_of(poses(30, 8190, 4321)).to_poses()
    assert record_of(found).to_dict()["persons"] == found.to_dict()["persons"]


def test_line_is_the_schema_of_poses_with_the_stream_added():
    record = record_of(poses(3))
    line = json.loads(record.to_json())
    assert line.pop("stream") == {"pts_ns": 480_000_000, "age_ns": 0, "fresh": True}
    assert line == json.loads(json.dumps(record.to_poses().to_dict()))
    assert {key: line[key] for key in ("v", "source", "index", "pts")} == {
        "v": 1,
        "source": "cam0",
        "index": 12,
        "pts": 0.48,
    }
    assert "\n" not in record.to_json()


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14, HAND])
def test_poses_read_a_line_back(skeleton):
    found = poses(2, skeleton=skeleton, track_ids=[4, 7])
    back = Poses.from_dict(json.loads(record_of(found).to_json()), skeleton)
    np.testing.assert_array_equal(back.keypoints, record_of(found).to_poses().keypoints)
    np.testing.assert_array_equal(back.track_ids, found.track_ids)


def test_unknown_time_is_null():
    record = record_of(poses(1), pts_ns=None)
    assert json.loads(record.to_json())["pts"] is None
    assert json.loads(record.to_json())["stream"]["pts_ns"] is None


def test_aged_poses_are_not_fresh():
    record = record_of(poses(1))
    assert (record.fresh, record.age_ns) == (True, 0)
    aged = record.aged(167_000_000)
    assert (aged.fresh, aged.age_ns, aged.pts_ns) == (False, 167_000_000, record.pts_ns)
    assert aged.to_dict()["persons"] == record.to_dict()["persons"]


def test_own_skeleton_keeps_its_limbs():
    assert record_of(poses(1, skeleton=HAND)).to_poses().skeleton == HAND
    assert record_of(poses(1, skeleton=CROWDPOSE_14)).to_poses().skeleton == CROWDPOSE_14


def test_skeleton_that_only_its_writer_knew_still_gives_points():
    record = PoseRecord(keypoints=np.zeros((1, 3, 3)), scores=[0.5], width=64, height=64, skeleton="paw")
    assert record.to_dict()["skeleton"] == "paw"
    assert len(record.to_poses().skeleton) == 3


def test_other_skeleton_is_refused():
    with pytest.raises(ValueError, match="expected skeleton 'two-fingers' of 2 keypoints, got 'coco-17' of 17"):
        record_of(poses(1, skeleton=HAND)).to_poses(COCO_17)


def test_arrays_cannot_be_changed():
    record = record_of(poses(1))
    with pytest.raises(ValueError, match="read-only"):
        record.keypoints[0, 0, 0] = 1


@pytest.mark.parametrize(
    "changes", [{"keypoints": np.zeros((2, 17, 2))}, {"scores": np.zeros(3)}, {"width": 0}, {"height": -1}]
)
def test_parts_that_do_not_belong_together_are_refused(changes):
    values = {"keypoints": np.zeros((2, 17, 3)), "scores": np.zeros(2), "width": 64, "height": 64}
    with pytest.raises(ValueError, match="expected"):
        PoseRecord(**{**values, **changes})
