import numpy as np
import pytest

from posesdk.oks import oks
from posesdk.skeleton import COCO_17

SIGMAS = COCO_17.sigma_array


def _persons(count, seed):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 200, (count, 17, 3))
    targets[..., 2] = rng.integers(0, 3, (count, 17))
    return targets, rng.uniform(500, 9000, count), rng.uniform(10, 120, (count, 4))


def test_pose_at_its_target_has_similarity_one():
    targets, areas, _ = _persons(3, 0)
    np.testing.assert_allclose(np.diag(oks(targets[..., :2], targets, areas, SIGMAS)), 1)


def test_distance_of_one_keypoint_follows_the_formula():
    target = np.zeros((1, 17, 3))
    target[0, 5, 2] = 2
    pose = np.full((1, 17, 2), 1e3)
    pose[0, 5] = (3, 4)
    # exp(-d^2 / (2 (2 sigma)^2 area)), COCO keypoint evaluation
    expected = np.exp(-25 / (2 * (2 * 0.079) ** 2 * 900))
    np.testing.assert_allclose(oks(pose, target, [900], SIGMAS), [[expected]], rtol=1e-6)


def test_unlabelled_person_needs_its_box():
    target = np.zeros((1, 17, 3))
    inside = np.full((1, 17, 2), 15.0)
    with pytest.raises(ValueError, match="boxes"):
        oks(inside, target, [100], SIGMAS)
    np.testing.assert_allclose(oks(inside, target, [100], SIGMAS, [[10, 10, 10, 10]]), 1)
    assert oks(inside + 100, target, [100], SIGMAS, [[10, 10, 10, 10]]) < 1e-6


def test_person_without_area_matches_itself_alone():
    target = np.full((1, 17, 3), 20.0)
    np.testing.assert_allclose(oks(target[..., :2], target, [0], SIGMAS), 1)
    assert oks(target[..., :2] + 0.01, target, [0], SIGMAS) == 0


def test_no_poses_and_no_persons_give_empty_tables():
    targets, areas, _ = _persons(2, 1)
    assert oks(np.zeros((0, 17, 2)), targets, areas, SIGMAS).shape == (0, 2)
    assert oks(targets[..., :2], targets[:0], areas[:0], SIGMAS).shape == (2, 0)


def test_equal_to_pycocotools():
    coco_eval = pytest.importorskip("pycocotools.cocoeval", reason="needs pycocotools, the reference evaluation")
    targets, areas, boxes = _persons(6, 2)
    targets[[1, 4], :, 2] = 0
    poses = targets[[0, 1, 2, 4, 5], :, :2] + np.random.default_rng(3).normal(0, 6, (5, 17, 2))
    evaluation = coco_eval.COCOeval(iouType="keypoints")
    evaluation.params.kpt_oks_sigmas = SIGMAS.astype(np.float64)
    evaluation._gts[1, 1] = [
        {"keypoints": target.ravel().tolist(), "area": area, "bbox": box.tolist()}
        for target, area, box in zip(targets, areas, boxes, strict=True)
    ]
    evaluation._dts[1, 1] = [
        {"keypoints": np.c_[pose, np.ones(17)].ravel().tolist(), "score": -index} for index, pose in enumerate(poses)
    ]
    expected = evaluation.computeOks(1, 1)
    assert expected.max() > 0.3
    np.testing.assert_allclose(oks(poses, targets, areas, SIGMAS, boxes), expected, rtol=1e-9, atol=1e-12)
