import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from posesdk.poses import FrameInfo, Pose, Poses
from posesdk.skeleton import COCO_17, Skeleton
from posesdk_runtimes.errors import MissingDependencyError

HAND = Skeleton(
    name="hand-3", keypoints=("left_tip", "right_tip", "palm"), edges=((0, 2), (1, 2)), sigmas=(0.1, 0.1, 0.1)
)


def some_poses(count: int, *, tracked: bool = False) -> Poses:
    rng = np.random.default_rng(count)
    return Poses(
        keypoints=rng.uniform(-20, 700, (count, 17, 2)),
        keypoint_scores=rng.uniform(0, 1, (count, 17)),
        scores=np.sort(rng.uniform(0, 1, count))[::-1],
        image_size=(480, 640),
        model="tiny",
        keypoint_threshold=0.5,
        track_ids=np.arange(count) + 7 if tracked else None,
        frame=FrameInfo("cam0", 12, 0.48),
        timing={"trunk": 1.23456},
    )


def test_a_frame_without_people_keeps_every_shape_and_type():
    poses = some_poses(0)
    assert len(poses) == 0
    assert list(poses) == []
    assert poses.keypoints.shape == (0, 17, 2)
    assert poses.keypoint_scores.shape == poses.visible.shape == (0, 17)
    assert poses.scores.shape == (0,)
    assert poses.boxes.shape == (0, 4)
    assert {poses.keypoints.dtype, poses.boxes.dtype, poses.scores.dtype} == {np.dtype(np.float32)}
    assert poses.to_dict()["persons"] == []
    assert poses.to_coco(3) == []
    assert len(Poses.from_dict(poses.to_dict())) == 0


def test_people_stand_in_descending_order_of_score_with_all_that_is_theirs():
    poses = Poses(
        keypoints=[[[1, 1]] * 3, [[2, 2]] * 3, [[3, 3]] * 3],
        keypoint_scores=[[0.1] * 3, [0.2] * 3, [0.3] * 3],
        scores=[0.2, 0.9, 0.5],
        track_ids=[10, 20, 30],
        image_size=(8, 8),
        skeleton=HAND,
    )
    assert poses.keypoints[:, 0, 0].tolist() == [2, 3, 1]
    assert poses.keypoint_scores[:, 1].tolist() == np.float32([0.2, 0.3, 0.1]).tolist()
    assert poses.track_ids is not None
    assert poses.track_ids.tolist() == [20, 30, 10]


def test_poses_own_their_memory_and_cannot_be_written():
    points = np.zeros((1, 17, 2), np.float32)
    poses = Poses(keypoints=points, keypoint_scores=np.ones((1, 17)), scores=[1], image_size=(4, 4))
    points[:] = 9
    assert not poses.keypoints.any()
    for array in (poses.keypoints, poses.keypoint_scores, poses.scores, poses.boxes, poses.visible, poses[0].keypoints):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(AttributeError):
        poses.scores = poses.scores  # type: ignore[misc]
    with pytest.raises(TypeError):
        poses.timing["trunk"] = 0.0  # type: ignore[index]


def test_the_box_holds_all_keypoints_and_a_low_score_only_hides_them():
    poses = some_poses(2)
    for person in range(2):
        xs = [float(x) for x, _ in poses.keypoints[person]]
        ys = [float(y) for _, y in poses.keypoints[person]]
        assert poses.boxes[person].tolist() == [min(xs), min(ys), max(xs), max(ys)]
        for joint in range(17):
            assert poses.visible[person, joint] == (poses.keypoint_scores[person, joint] >= 0.5)
    assert not poses.visible.all()
    assert np.count_nonzero(poses.keypoints) == 2 * 17 * 2


def test_a_number_gives_a_pose_and_a_slice_list_or_mask_gives_poses():
    poses = some_poses(4, tracked=True)
    assert isinstance(poses[0], Pose)
    assert poses[-1].score == float(poses.scores[3])
    assert poses[1].track_id == 8
    assert [pose.score for pose in poses] == poses.scores.tolist()
    for picked in (poses[1:3], poses[[1, 2]], poses[np.array([False, True, True, False])], poses[np.array([2, 1])]):
        assert isinstance(picked, Poses)
        assert picked.keypoints.tolist() == poses.keypoints[1:3].tolist()
        assert picked.frame == poses.frame
    assert len(poses[[]]) == 0
    with pytest.raises(IndexError, match="person 4 of 4"):
        poses[4]


def test_a_list_of_booleans_is_a_mask_and_an_empty_list_nobody():
    poses = some_poses(3)
    assert poses[[True, False, True]].scores.tolist() == [poses.scores[0], poses.scores[2]]
    assert poses[[]].keypoints.shape == (0, 17, 2)


@pytest.mark.parametrize("count", [0, 3])
def test_poses_go_to_another_process_and_stay_read_only(count):
    poses = some_poses(count, tracked=True)
    for copied in (pickle.loads(pickle.dumps(poses)), copy.deepcopy(poses)):
        assert copied.to_dict() == poses.to_dict()
        assert copied.keypoint_threshold == poses.keypoint_threshold
        assert not copied.keypoints.flags.writeable
        with pytest.raises(TypeError):
            copied.timing["trunk"] = 0


def test_poses_stay_as_they_are_when_the_arrays_they_were_made_of_change():
    arrays = {name: getattr(some_poses(3), name).copy() for name in ("keypoints", "keypoint_scores", "scores")}
    poses = Poses(**arrays, image_size=(480, 640))
    before = {name: values.copy() for name, values in arrays.items()}
    for name, values in arrays.items():
        values[:] = -1  # the caller's own, and still writeable
        np.testing.assert_array_equal(getattr(poses, name), before[name])


def test_people_that_are_all_above_stay_with_everything_known_of_them():
    poses = some_poses(3, tracked=True)
    for kept in (poses.above(0.0), poses.above(float(poses.scores[-1]))):
        assert kept.to_dict() == poses.to_dict()
    assert some_poses(0).above(0.5).to_dict() == some_poses(0).to_dict()


def test_above_keeps_those_that_score_at_least_the_threshold():
    poses = some_poses(5)
    threshold = float(poses.scores[2])
    assert len(poses.above(threshold)) == 3


def test_a_keypoint_is_found_by_name():
    pose = some_poses(1)[0]
    assert pose.keypoint("left_wrist") == (*pose.keypoints[9].tolist(), float(pose.keypoint_scores[9]))
    with pytest.raises(ValueError, match="nose"):
        pose.keypoint("tail")


def test_to_dict_is_the_schema_and_survives_json_exactly():
    poses = some_poses(3, tracked=True)
    data = json.loads(json.dumps(poses.to_dict(), allow_nan=False))
    assert list(data) == [
        "v",
        "source",
        "index",
        "pts",
        "width",
        "height",
        "model",
        "skeleton",
        "persons",
        "timing_ms",
    ]
    assert (data["v"], data["source"], data["index"], data["pts"]) == (1, "cam0", 12, 0.48)
    assert (data["width"], data["height"], data["model"], data["skeleton"]) == (640, 480, "tiny", "coco-17")
    assert data["timing_ms"] == {"trunk": 1.235}
    assert [list(person) for person in data["persons"]] == [["id", "score", "box", "keypoints"]] * 3
    assert [person["id"] for person in data["persons"]] == [7, 8, 9]
    back = Poses.from_dict(data)
    assert back.keypoints.tolist() == poses.keypoints.tolist()
    assert back.keypoint_scores.tolist() == poses.keypoint_scores.tolist()
    assert back.scores.tolist() == poses.scores.tolist()
    assert back.to_dict() == poses.to_dict()


def test_a_time_is_written_to_the_microsecond():
    poses = replace(some_poses(1), frame=FrameInfo("a.mp4", 380, 15200.000000000002 / 1000))
    assert json.dumps(poses.to_dict()["pts"]) == "15.2"


def test_untracked_people_have_null_ids():
    data = some_poses(2).to_dict()
    assert [person["id"] for person in data["persons"]] == [None, None]
    assert Poses.from_dict(data).track_ids is None


def test_to_dict_spells_each_number_as_numpy_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 6000, dtype=np.uint32).view(np.float32)
    special = np.float32([0, -0.0, 1e-45, 3.4028235e38, 1e15, 1e16, 16777217, 0.1, 123.45])
    numbers = np.concatenate([special, bits[np.isfinite(bits)]])[: 17 * 2 * 100].reshape(100, 17, 2)
    poses = replace(some_poses(100), keypoints=numbers)
    persons = poses.to_dict()["persons"]
    for values, person in zip(poses.keypoints, persons, strict=True):
        spelled = [repr(value) for point in person["keypoints"] for value in point[:2]]
        assert spelled == [repr(float(str(value))) for value in values.reshape(-1)]


def test_from_dict_refuses_another_version_or_skeleton():
    data = some_poses(1).to_dict()
    with pytest.raises(ValueError, match="schema version 1, got 2"):
        Poses.from_dict(data | {"v": 2})
    with pytest.raises(ValueError, match="skeleton 'hand-3', got 'coco-17'"):
        Poses.from_dict(data, HAND)


def test_coco_results_interleave_scores_and_have_no_box():
    poses = some_poses(2)
    first, _ = poses.to_coco(42)
    assert sorted(first) == ["category_id", "image_id", "keypoints", "score"]
    assert (first["image_id"], first["category_id"]) == (42, 1)
    assert np.float32(first["keypoints"]).reshape(17, 3)[:, :2].tolist() == poses.keypoints[0].tolist()
    assert np.float32(first["keypoints"][2::3]).tolist() == poses.keypoint_scores[0].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((2, 16, 2))}, r"keypoints: expected shape \(2, 17, 2\), got \(2, 16, 2\)"),
        ({"keypoint_scores": np.zeros(2)}, r"keypoint_scores: expected shape \(2, 17\), got \(2,\)"),
        ({"scores": np.zeros((2, 1))}, r"scores: expected shape \('N',\), got \(2, 1\)"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    arrays = {"keypoints": np.zeros((2, 17, 2)), "keypoint_scores": np.zeros((2, 17)), "scores": np.zeros(2)}
    with pytest.raises(ValueError, match=message):
        Poses(**(arrays | change), image_size=(4, 4), skeleton=COCO_17)


def test_without_supervision_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match="pip install supervision"):
        some_poses(1).to_supervision()


def test_supervision_gets_the_same_numbers():
    supervision = pytest.importorskip("supervision", reason="supervision is optional")
    for count in (0, 3):
        poses = some_poses(count)
        points = poses.to_supervision()
        assert isinstance(points, supervision.KeyPoints)
        assert points.xy.tolist() == poses.keypoints.tolist()


def test_draw_changes_only_a_copy():
    frame = np.zeros((480, 640, 3), np.uint8)
    drawn = some_poses(2).draw(frame)
    assert not frame.any()
    assert drawn.any()
