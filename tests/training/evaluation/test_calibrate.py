"""Thresholds chosen on labelled persons."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk_runtimes.errors import DataError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.calibrate import (
    best_threshold,
    choose_thresholds,
    lowest_threshold,
    rounded_up,
    write_thresholds,
)
from posesdk_training.evaluation.false_positives import FalsePositives
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.predict import predict
from posesdk_training.models.build import build_model
from posesdk_training.program import app


def brute_best(scores, right, total):
    best = max(
        sorted(set(scores), reverse=True),
        key=lambda t: 2 * sum(r for s, r in zip(scores, right, strict=True) if s >= t)
        / (sum(s >= t for s in scores) + total),
    )  # fmt: skip
    hits = sum(r for s, r in zip(scores, right, strict=True) if s >= best)
    return best, hits / sum(s >= best for s in scores), hits / total


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_equals_a_search_over_all_scores(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 12, 40) / 10.0  # with ties
    right = rng.random(40) < scores / 1.2
    total = int(right.sum()) + 5
    found = best_threshold(scores, right, total)
    expected = brute_best(scores.tolist(), right.tolist(), total)
    assert (found.score, found.precision, found.recall) == pytest.approx(expected)


@pytest.fixture
def truth(tmp_path):
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(1, 7):
        points = np.concatenate([rng.uniform(10, 190, (17, 2)), np.full((17, 1), 2.0)], axis=1)
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 9000.0,
             "bbox": [0.0, 0.0, 200.0, 200.0], "keypoints": points.ravel().tolist()}
        )  # fmt: skip
    tree = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(1, 7)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(tree))
    return path


def result(entry, score, shift=0.0, keypoint_scores=None):
    points = np.array(entry["keypoints"]).reshape(17, 3).copy()
    points[:, 0] += shift
    points[:, 2] = score if keypoint_scores is None else keypoint_scores
    return {"image_id": entry["image_id"], "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}


def test_threshold_lies_between_right_and_wrong_persons(truth):
    people = json.loads(truth.read_text())["annotations"]
    results = [result(person, 0.5 + 0.01 * person["id"]) for person in people]
    results += [result(person, 0.1, shift=500.0) for person in people]
    chosen = choose_thresholds(load_ground_truth(truth), results)
    assert chosen.person.score == pytest.approx(0.51)
    assert (chosen.person.precision, chosen.person.recall) == (1.0, 1.0)


def test_keypoint_threshold_lies_between_right_and_wrong_keypoints(truth):
    people = json.loads(truth.read_text())["annotations"]
    scores = np.where(np.arange(17) < 13, 0.6, 0.2)
    results = []
    for person in people:
        moved = result(person, 0.5, keypoint_scores=scores)
        points = np.array(moved["keypoints"]).reshape(17, 3)
        points[13:, 1] += 300.0
        results.append(moved | {"keypoints": points.ravel().tolist()})
    chosen = choose_thresholds(load_ground_truth(truth), results)
    assert chosen.keypoint.score == pytest.approx(0.6)
    assert chosen.keypoint.precision == 1.0


def test_keypoint_that_is_not_labelled_is_wrong(truth):
    tree = json.loads(truth.read_text())
    scores = np.where(np.arange(17) < 13, 0.6, 0.2)
    results = [result(person, 0.5, keypoint_scores=scores) for person in tree["annotations"]]
    for person in tree["annotations"]:
        points = np.array(person["keypoints"]).reshape(17, 3)
        points[13:] = 0
        person |= {"keypoints": points.ravel().tolist(), "num_keypoints": 13}
    truth.write_text(json.dumps(tree))
    chosen = choose_thresholds(load_ground_truth(truth), results)
    assert chosen.keypoint.score == pytest.approx(0.6)
    assert chosen.keypoint.precision == 1.0


def test_nothing_found_is_said(truth):
    people = json.loads(truth.read_text())["annotations"]
    with pytest.raises(DataError, match="no person is found"):
        choose_thresholds(load_ground_truth(truth), [result(people[0], 0.5, shift=500.0)])


def test_checkpoint_keeps_its_weights_and_gets_the_thresholds(tiny_run, truth, tmp_path):
    model = build_model(tiny_run.TINY_SPEC)
    save_checkpoint(tmp_path / "a.safetensors", model.state_dict(), tiny_run.TINY_SPEC, metadata={"step": "5"})
    people = json.loads(truth.read_text())["annotations"]
    chosen = choose_thresholds(load_ground_truth(truth), [result(person, 0.25) for person in people])
    write_thresholds(tmp_path / "a.safetensors", tmp_path / "b.safetensors", chosen, half=False)
    before, after = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab")
    assert after.spec.decode.score_threshold == 0.25
    assert after.metadata == before.metadata == {"step": "5"}
    assert all((before.state_dict[key] == after.state_dict[key]).all() for key in before.state_dict)


def false_persons(scores, images=10):
    return FalsePositives(images, np.array(scores, np.float32))


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.25, 0.5])
def test_lowest_threshold_keeps_to_the_limit_and_no_lower_one_does(limit):
    empty = false_persons(np.random.default_rng(0).random(6))
    lowest = lowest_threshold(empty, limit)
    assert empty.per_image(lowest) <= limit
    below = empty.scores[empty.scores < lowest].max()
    assert empty.per_image(float(below)) > limit


def test_no_false_persons_need_no_threshold():
    assert lowest_threshold(false_persons([]), 0.1) == 0.0


def test_threshold_keeps_to_the_false_persons_of_empty_pictures(truth):
    """Right persons score 0.51 to 0.56; three of ten empty pictures have somebody, one may."""
    people = json.loads(truth.read_text())["annotations"]
    results = [result(person, 0.5 + 0.01 * person["id"]) for person in people]
    empty = false_persons([0.7, 0.535, 0.2])
    chosen = choose_thresholds(load_ground_truth(truth), results, empty=empty, limit=0.1)
    assert chosen.best.score == pytest.approx(0.51)
    assert empty.per_image(chosen.best.score) == pytest.approx(0.2)
    assert chosen.person.score == pytest.approx(0.54)
    assert empty.per_image(chosen.person.score) == pytest.approx(0.1)
    assert chosen.person.recall == pytest.approx(3 / 6)


def test_limit_that_nobody_survives_is_said(truth):
    people = json.loads(truth.read_text())["annotations"]
    results = [result(person, 0.5) for person in people]
    with pytest.raises(DataError, match="--max-false-positives"):
        choose_thresholds(load_ground_truth(truth), results, empty=false_persons([0.7, 0.6]), limit=0.1)


@pytest.mark.parametrize(("score", "expected"), [(0.25, 0.25), (0.51, 0.51), (0.03431, 0.0344), (0.03439, 0.0344)])
def test_stored_threshold_is_not_below_the_chosen_one(score, expected):
    assert rounded_up(score) == pytest.approx(expected, abs=1e-12)


def own_persons(checkpoint, picture, path):
    """Annotations of a picture that are what the checkpoint itself finds best in it."""
    with open_model(checkpoint, device="cpu") as model:
        best = predict(model, [(1, picture)], min_score=0.0).results[0]
    points = np.array(best["keypoints"]).reshape(17, 3)
    points[:, 2] = 2
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 3000.0}
    person |= {"bbox": [0.0, 0.0, 90.0, 90.0], "keypoints": points.ravel().tolist()}
    images = [{"id": 1, "file_name": picture.name}]
    categories = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": [person], "categories": categories}))
    return path


@pytest.mark.parametrize(
    ("target", "message"), [("absent/out.safetensors", "there is no folder"), (".", "it is a folder")]
)
def test_output_that_cannot_be_written_is_said_before_the_measurement(tiny_checkpoint, truth, target, message):
    arguments = ["calibrate", tiny_checkpoint, "--annotations", truth, "--images", truth.parent]
    done = CliRunner().invoke(app, [str(word) for word in (*arguments, "--output", truth.parent / target)])
    assert done.exit_code == 1, done.output
    assert message in done.stderr
    assert list(truth.parent.iterdir()) == [truth]


def test_command_reports_both_thresholds(tiny_checkpoint, tiny_picture, tmp_path):
    annotations = own_persons(tiny_checkpoint, tiny_picture, tmp_path / "own.json")
    target = tmp_path / "calibrated.safetensors"
    arguments = ["calibrate", tiny_checkpoint, "--annotations", annotations, "--images", tiny_picture.parent]
    arguments += ["--device", "cpu", "--no-people", tiny_picture.parent, "--max-false-positives", 1, "--output", target]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert "best F1 of persons: score" in done.stdout
    assert done.stdout.count("1.000 false persons a picture on 1 without people") == 2
    assert load_checkpoint(target).spec.decode.score_threshold > 0
