"""Who is found, and how exactly."""

import json

import numpy as np
import pytest

from posesdk.oks import oks
from posesdk.skeleton import COCO_17
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.matching import match_results, recall
from posesdk_training.evaluation.per_keypoint import keypoint_figures, similarities


@pytest.fixture
def truth(truth_file):
    return load_ground_truth(truth_file)


def test_every_person_is_found_or_missed(truth, people):
    results = people.results_from(truth.path)
    results[0]["keypoints"] = [value + 900.0 for value in results[0]["keypoints"]]
    matching = match_results(truth, results)
    assert len(matching.matches) == 6
    assert [person["id"] for person in matching.missed] == [1]
    assert matching.wrong == (results[0],)
    assert matching.persons == 7
    assert all(result["image_id"] == person["image_id"] for result, person in matching.matches)


def test_low_scores_find_nobody_above_a_threshold(truth, people):
    results = people.results_from(truth.path, score=0.5)
    results[3]["score"] = 0.05
    assert recall(truth, results, threshold=0.0)["all"].found == 7
    assert recall(truth, results, threshold=0.1)["all"].found == 6
    assert recall(truth, results, threshold=0.1)["all"].share == pytest.approx(6 / 7)


def test_large_persons_are_those_above_96_squared(truth, people):
    """Four of the seven have an area of 20000, the others of 2000."""
    results = people.results_from(truth.path, score=0.5)
    large = [entry["id"] for entry in truth.persons if entry["area"] > 96**2]
    assert len(large) == 4
    kept = [result for number, result in enumerate(results, start=1) if number != large[0]]
    found = recall(truth, kept, threshold=0.0)["large"]
    assert (found.found, found.persons) == (3, 4)


def test_whole_persons_have_three_quarters_of_their_keypoints(truth, people):
    """Person n of seven has 17 - n labelled keypoints: 13 or more are whole, and the odd ones are large."""
    found = recall(truth, people.results_from(truth.path), threshold=0.0)["large_whole"]
    assert (found.found, found.persons) == (2, 2)


def test_tall_persons_are_those_above_half_the_image(truth_file, people):
    tree = json.loads(truth_file.read_text())
    for image in tree["images"]:
        image["height"] = 300 if image["id"] == 3 else 500  # the boxes are 200 high: tall in image 3 alone
    truth_file.write_text(json.dumps(tree))
    truth = load_ground_truth(truth_file)
    results = people.results_from(truth_file, score=0.5)
    last = [index for index, result in enumerate(results) if result["image_id"] == 3][-1]
    results[last]["score"] = 0.05
    everyone = recall(truth, results, threshold=0.0)["tall"]
    above = recall(truth, results, threshold=0.1)["tall"]
    moved = recall(truth, people.results_from(truth_file, shift=400.0), threshold=0.0)["tall"]
    assert (everyone.found, everyone.persons) == (2, 2)
    assert (above.found, above.persons) == (1, 2)
    assert (moved.found, moved.persons) == (0, 2)


def test_group_without_persons_has_no_recall(truth, people):
    assert recall(truth, people.results_from(truth.path), threshold=0.0)["tall"].share is None


def test_mean_similarity_of_labelled_keypoints_is_the_oks():
    rng = np.random.default_rng(0)
    found, actual = rng.uniform(0, 100, (2, 6, 17, 2))
    areas, sigmas = rng.uniform(500, 5000, 6), np.array(COCO_17.sigmas)
    labels = np.concatenate([actual, np.ones((6, 17, 1))], axis=-1)
    expected = np.diagonal(oks(found, labels, areas, sigmas))
    assert similarities(found, actual, areas[:, None], sigmas).mean(axis=1) == pytest.approx(expected)


def test_figures_of_keypoints_are_counted_by_hand(truth, people):
    """Noses are moved by 0.1 of the boxes' 200 px, left eyes by 0.3; one person is not found at all."""
    results = people.results_from(truth.path)
    for result in results[1:]:
        result["keypoints"][0] += 20.0
        result["keypoints"][3] += 60.0
    results[0]["keypoints"] = [value + 900.0 for value in results[0]["keypoints"]]
    rows = {row.name: row for row in keypoint_figures(truth, match_results(truth, results))}
    assert list(rows) == [*COCO_17.keypoints, "all"]
    nose, eye, mouth = rows["nose"], rows["left_eye"], rows["right_eye"]
    assert (nose.labelled, nose.matched) == (7, 6)
    assert nose.pck == (1.0, 0.0)
    assert nose.found == pytest.approx(6 / 7)
    assert eye.pck == (0.0, 0.0)
    assert mouth.pck == (1.0, 1.0)
    areas = [person["area"] for person in truth.persons[1:]]
    alike = [np.exp(-(20.0**2) / (2 * area * (2 * COCO_17.sigmas[0]) ** 2)) for area in areas]
    assert nose.oks == pytest.approx(np.mean(alike))
    steps = np.arange(0.5, 1.0, 0.05)
    assert nose.oks_share == pytest.approx(np.mean([[value >= step for step in steps] for value in alike]))
    assert mouth.oks == mouth.oks_share == pytest.approx(1.0)
    everything = rows["all"]
    assert everything.labelled == sum(rows[name].labelled for name in COCO_17.keypoints)


def test_keypoint_that_is_never_labelled_has_no_figures(tmp_path, people):
    person = people.annotation(1, 1, np.random.default_rng(0), labelled=9)
    truth = load_ground_truth(people.write_truth(tmp_path / "t.json", [person]))
    rows = keypoint_figures(truth, match_results(truth, people.results_from(truth.path)))
    hip = rows[COCO_17.keypoints.index("left_hip")]
    assert (hip.labelled, hip.matched, hip.oks, hip.found) == (0, 0, None, None)


def test_nobody_found_leaves_figures_empty(truth):
    rows = keypoint_figures(truth, match_results(truth, []))
    assert rows[-1].matched == 0
    assert rows[-1].found == 0.0
    assert rows[-1].oks is None
