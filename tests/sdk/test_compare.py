import itertools
import json

import numpy as np
import pytest

from posesdk.compare import Deviations, compare_poses
from posesdk.oks import oks
from posesdk.pipeline import Estimate
from posesdk.skeleton import COCO_17

K = len(COCO_17)
SHAPE = np.random.default_rng(0).uniform(0, 100, (K, 2)).astype(np.float32)
NOSE = COCO_17.keypoints.index("nose")


def people(*places: tuple[float, float, float]) -> Estimate:
    """The same figure of 100 x 100 px at each (x, y), with its score."""
    points = np.array([SHAPE + np.float32([x, y]) for x, y, _ in places], np.float32).reshape(-1, K, 2)
    scores = np.array([score for *_, score in places], np.float32)
    return Estimate(points, np.repeat(scores[:, None], K, 1), scores, {})


def compare(wanted: Estimate, found: Estimate, threshold: float = 0.5):
    return compare_poses(wanted, found, threshold=threshold, sigmas=COCO_17.sigmas)


def area(points: np.ndarray) -> float:
    return float(np.ptp(points[:, 0]) * np.ptp(points[:, 1]))


def test_equal_poses_do_not_deviate():
    poses = people((0, 0, 0.9), (300, 0, 0.8), (600, 0, 0.1))
    same = compare(poses, poses)
    assert same.pairs.tolist() == [[0, 0], [1, 1]]
    assert len(same.missing) == len(same.extra) == 0
    assert not same.shifts.any()
    assert not same.score_changes.any()
    assert same.similarities.tolist() == [1, 1]


def test_a_shift_is_the_distance_of_each_keypoint_in_pixels():
    wanted, found = people((0, 0, 0.9)), people((0, 0, 0.7))
    found.keypoints[0, NOSE] += (3, 4)
    shifted = compare(wanted, found)
    assert shifted.shifts[0, NOSE] == pytest.approx(5, abs=1e-4)
    assert shifted.shifts.sum() == pytest.approx(5, abs=1e-4)
    assert shifted.score_changes[0] == pytest.approx(-0.2)
    alike = np.exp(-25 / (2 * area(wanted.keypoints[0]) * (2 * COCO_17.sigmas[NOSE]) ** 2))
    assert shifted.similarities[0] == pytest.approx((K - 1 + alike) / K, abs=1e-5)


def test_who_is_nowhere_near_is_missing_and_extra():
    lost = compare(people((0, 0, 0.9), (300, 0, 0.8)), people((300, 0, 0.8), (700, 0, 0.6)))
    assert lost.pairs.tolist() == [[1, 0]]
    assert (lost.missing.tolist(), lost.extra.tolist(), lost.people) == ([0], [1], 2)


def test_who_falls_below_the_threshold_is_not_missing():
    fallen = compare(people((0, 0, 0.51)), people((1, 0, 0.49)))
    assert fallen.pairs.tolist() == [[0, 0]]
    assert fallen.score_changes[0] == pytest.approx(-0.02, abs=1e-6)
    assert (fallen.fallen, fallen.risen) == (1, 0)


def test_who_rises_above_the_threshold_is_not_extra():
    risen = compare(people((0, 0, 0.49)), people((1, 0, 0.51)))
    assert (len(risen.pairs), len(risen.missing), len(risen.extra), risen.people) == (0, 0, 0, 0)
    assert (risen.fallen, risen.risen) == (0, 1)


def test_two_risen_persons_on_one_wanted_pose_are_one_extra():
    assert compare(people((0, 0, 0.1)), people((3, 0, 0.7), (1, 0, 0.6))).extra.tolist() == [0]


def test_people_below_the_threshold_on_both_sides_do_not_count():
    faint = compare(people((0, 0, 0.4)), people((500, 0, 0.4)))
    assert (faint.people, len(faint.missing), len(faint.extra)) == (0, 0, 0)


def test_a_found_pose_has_one_partner_and_the_most_similar_one():
    one = compare(people((6, 0, 0.9), (1, 0, 0.8)), people((0, 0, 0.9)))
    assert one.pairs.tolist() == [[1, 0]]
    assert one.missing.tolist() == [0]


def test_pairs_are_those_of_a_search_through_all_combinations_in_order_of_similarity():
    rng = np.random.default_rng(1)
    for _ in range(20):
        wanted = people(*((x, y, 0.9) for x, y in rng.uniform(0, 15, (5, 2))))
        found = people(*((x, y, 0.9) for x, y in rng.uniform(0, 15, (4, 2))))
        ranked = sorted(
            (
                (_pair_oks(found.keypoints[f], wanted.keypoints[w]), w, f)
                for w, f in itertools.product(range(5), range(4))
            ),
            reverse=True,
        )
        expected = []
        for similarity, w, f in ranked:
            if similarity >= 0.5 and all(w != a and f != b for a, b in expected):
                expected.append((w, f))
        assert sorted(map(tuple, compare(wanted, found).pairs.tolist())) == sorted(expected)


def _pair_oks(found: np.ndarray, wanted: np.ndarray) -> float:
    target = np.concatenate([wanted, np.ones((K, 1))], axis=1)
    return float(oks(found[None], target[None], [area(wanted)], COCO_17.sigmas)[0, 0])


def test_a_pose_in_a_single_point_is_compared_by_a_pixel():
    point = Estimate(np.zeros((1, K, 2), np.float32), np.ones((1, K), np.float32), np.ones(1, np.float32), {})
    assert compare(point, point).pairs.tolist() == [[0, 0]]


def test_pictures_without_people_are_equal():
    summary = Deviations(COCO_17)
    summary.add("empty", compare(people(), people()))
    found = summary.summary()
    assert (found.images, found.people, found.missing, found.extra) == (1, 0, 0, 0)
    assert (found.mean_oks, found.shift_max, found.shift_p99, found.score_mean) == (1, 0, 0, 0)


def test_no_found_poses_are_all_missing_and_no_wanted_ones_all_extra():
    assert compare(people((0, 0, 1)), people()).missing.tolist() == [0]
    assert compare(people(), people((0, 0, 1))).extra.tolist() == [0]


def test_summary_is_over_the_keypoints_of_all_pictures():
    rng = np.random.default_rng(2)
    deviations, lengths, changes = Deviations(COCO_17), [], []
    for index in range(12):
        wanted = people((0, 0, 0.8))
        moves = rng.normal(0, 2, (K, 2)).astype(np.float32)
        found = people((0, 0, 0.8 + index / 100))
        found.keypoints[0] += moves
        lengths.append(np.hypot(*moves.T))
        changes.append(index / 100)
        deviations.add(str(index), compare(wanted, found))
    found = deviations.summary()
    assert (found.images, found.people) == (12, 12)
    assert found.shift_median == pytest.approx(np.median(lengths), abs=1e-4)
    assert found.shift_max == pytest.approx(np.max(lengths), abs=1e-4)
    assert np.mean(np.array(lengths) <= found.shift_p99) == pytest.approx(0.99, abs=0.01)
    assert found.score_max == pytest.approx(0.11, abs=1e-6)
    assert found.score_mean == pytest.approx(np.mean(changes), abs=1e-6)
    assert found.keypoints["nose"]["median"] == pytest.approx(np.median(np.array(lengths)[:, NOSE]), abs=1e-4)
    assert list(found.keypoints) == list(COCO_17.keypoints)


def test_missing_and_extra_people_count_as_no_similarity():
    deviations = Deviations(COCO_17)
    deviations.add("one", compare(people((0, 0, 0.9), (300, 0, 0.8)), people((0, 0, 0.9), (700, 0, 0.6))))
    assert deviations.summary().mean_oks == pytest.approx(1 / 3)


def test_the_worst_pictures_have_lost_people_first_and_then_the_largest_shift():
    deviations = Deviations(COCO_17)
    for shift in (1, 3, 2):
        deviations.add(f"by-{shift}", compare(people((0, 0, 0.9)), people((shift, 0, 0.9))))
    deviations.add("lost", compare(people((0, 0, 0.9)), people()))
    assert [name for name, _ in deviations.worst(3)] == ["lost", "by-3", "by-2"]


def test_a_summary_can_be_written_as_json():
    deviations = Deviations(COCO_17)
    deviations.add("one", compare(people((0, 0, 0.9)), people((1, 0, 0.8))))
    written = json.loads(json.dumps(deviations.summary().to_dict(), allow_nan=False))
    assert written["people"] == 1
    assert written["keypoints"]["left_wrist"]["p99"] == pytest.approx(1, abs=1e-4)
