"""The best place near every keypoint."""

import json

import numpy as np
import pytest

from posesdk.skeleton import COCO_17
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import evaluate_keypoints
from posesdk_training.evaluation.upper_bound import MATCH_RULES, upper_bound

SIGMAS = np.array(COCO_17.sigmas)
SCALE = 0.5
"""Net px per image px of every image."""
STEP = SIGMAS / 0.025 / SCALE
"""Distance of two places in image px, per keypoint."""


@pytest.fixture
def truth(truth_file):
    return load_ground_truth(truth_file)


def bound_of(truth, initial, **options):
    return upper_bound(truth, initial, dict.fromkeys(range(1, 5), SCALE), **options)


def points_of(results):
    return np.array([result["keypoints"] for result in results]).reshape(len(results), 17, 3)


def similarity(points, person):
    actual = np.array(person["keypoints"]).reshape(17, 3)
    squares = ((points[:, :2] - actual[:, :2]) ** 2).sum(axis=1)
    return np.exp(-squares / (2 * person["area"] * (2 * SIGMAS) ** 2)), actual[:, 2] > 0


def lonely(tmp_path, people, labelled=17):
    """One person on the first image."""
    person = people.annotation(1, 1, np.random.default_rng(5), labelled=labelled)
    return load_ground_truth(people.write_truth(tmp_path / "one.json", [person])), person


@pytest.mark.parametrize("match", MATCH_RULES)
def test_window_of_one_changes_nothing(truth, people, match):
    initial = people.results_from(truth.path, noise=20.0)
    found = bound_of(truth, initial, window=1, match=match)
    assert points_of(found.results) == pytest.approx(points_of(initial))
    assert found.oks_after == found.oks_before


@pytest.mark.parametrize("match", MATCH_RULES)
def test_similarity_of_no_keypoint_decreases(tmp_path, people, match):
    truth, person = lonely(tmp_path, people)
    initial = [result for seed in range(5) for result in people.results_from(truth.path, noise=5.0 * 4**seed)]
    moved = bound_of(truth, initial, match=match).results
    for before, after in zip(points_of(initial), points_of(moved), strict=True):
        assert np.all(similarity(after, person)[0] >= similarity(before, person)[0])


@pytest.mark.parametrize("match", MATCH_RULES)
def test_bound_is_not_below_the_poses(truth, people, match):
    initial = people.results_from(truth.path, noise=15.0)
    found = bound_of(truth, initial, match=match)
    before, after = (evaluate_keypoints(truth, results).stats["AP"] for results in (initial, found.results))
    assert after > before + 0.1
    assert found.oks_after > found.oks_before


def test_keypoint_inside_the_window_ends_half_a_step_away(tmp_path, people):
    truth, person = lonely(tmp_path, people)
    rng = np.random.default_rng(0)
    actual = np.array(person["keypoints"]).reshape(17, 3)
    initial = people.results_from(truth.path)
    points = points_of(initial)[0]
    points[:, :2] += rng.uniform(-5, 5, (17, 2)) * STEP[:, None]
    initial[0]["keypoints"] = points.ravel().tolist()
    moved = points_of(bound_of(truth, initial).results)[0]
    assert np.all(np.abs(moved[:, :2] - actual[:, :2]) <= STEP[:, None] / 2 + 1e-9)
    assert moved[:, 2] == pytest.approx(points[:, 2])


def test_places_are_those_of_the_keypoint_expansion(tmp_path, people):
    """A far keypoint goes to the corner of its mesh: 5 steps of sigma / 0.025 net px."""
    truth, person = lonely(tmp_path, people)
    initial = people.results_from(truth.path)
    points = points_of(initial)[0]
    points[:, :2] += 6 * STEP[:, None]
    initial[0]["keypoints"] = points.ravel().tolist()
    moved = points_of(bound_of(truth, initial).results)[0]
    actual = np.array(person["keypoints"]).reshape(17, 3)
    assert moved[:, :2] - actual[:, :2] == pytest.approx(np.repeat(STEP[:, None], 2, axis=1))


def test_unlabelled_keypoints_and_scores_stay(tmp_path, people):
    truth, _ = lonely(tmp_path, people, labelled=9)
    initial = people.results_from(truth.path, noise=8.0)
    moved = bound_of(truth, initial).results
    assert points_of(moved)[0, 9:] == pytest.approx(points_of(initial)[0, 9:])
    assert not np.allclose(points_of(moved)[0, :9], points_of(initial)[0, :9])
    assert [result["score"] for result in moved] == [result["score"] for result in initial]


def test_pose_where_nobody_is_stays(truth, people):
    stray = people.results_from(truth.path)[0] | {"image_id": 4}
    assert bound_of(truth, [stray]).results == [stray]


@pytest.mark.parametrize("match", MATCH_RULES)
def test_person_whose_keypoints_are_all_missing_moves_nothing(tmp_path, people, match):
    person = people.annotation(1, 1, np.random.default_rng(5), labelled=0) | {"num_keypoints": 3}
    truth = load_ground_truth(people.write_truth(tmp_path / "one.json", [person]))
    initial = people.results_from(truth.path)
    assert bound_of(truth, initial, match=match).results == initial


def test_rules_choose_different_persons(tmp_path, people):
    """The first person has more keypoints to sum over, the second one fits better where it is labelled."""
    rng = np.random.default_rng(6)
    first, second = (people.annotation(number, 1, rng) for number in (1, 2))
    pose = np.array(first["keypoints"]).reshape(17, 3)
    first["keypoints"] = (pose + np.array([4.5 * STEP.min(), 0, 0])).ravel().tolist()
    other = pose.copy()
    other[5:] = 0
    second |= {"keypoints": other.ravel().tolist(), "num_keypoints": 5}
    truth = load_ground_truth(people.write_truth(tmp_path / "two.json", [first, second]))
    initial = people.results_from(truth.path)[1:]
    points = pose.copy()
    points[:, 2] = 0.5
    initial[0]["keypoints"] = points.ravel().tolist()
    by_sum, by_best = (bound_of(truth, initial, match=rule) for rule in MATCH_RULES)
    assert by_sum.oks_before < 1
    assert by_best.oks_before == pytest.approx(1.0)


def test_even_window_is_refused(truth):
    with pytest.raises(ValueError, match="odd"):
        bound_of(truth, [], window=10)


def test_no_poses_have_no_bound(truth):
    found = bound_of(truth, [])
    assert (found.results, found.oks_before) == ([], 0.0)


def test_results_stay_plain_json(truth, people):
    found = bound_of(truth, people.results_from(truth.path, noise=3.0))
    assert json.loads(json.dumps(found.results)) == found.results
