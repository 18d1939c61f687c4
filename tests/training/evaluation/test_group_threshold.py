"""DAC's grouping threshold, chosen on the candidates of labelled photos."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.decode import decode_center_offset
from posesdk.dual_centers import pose_context
from posesdk.preprocess import make_letterbox
from posesdk_runtimes.errors import DataError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.calibrate import choose_thresholds, with_group_threshold
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.group_threshold import Pairs, choose_group_threshold, collect_pairs
from posesdk_training.evaluation.predict import predict, read_stored
from posesdk_training.program import app

AREA = 3000.0
SOURCE = Path("held_out.json")


def brute_f1(pairs, threshold):
    joined = [value > threshold for value in pairs.similarity]
    right = sum(a and b for a, b in zip(joined, pairs.same, strict=True))
    precision, recall = right / max(sum(joined), 1), right / sum(pairs.same)
    return 2 * precision * recall / (precision + recall) if right else 0.0


def random_pairs(seed, count=60):
    rng = np.random.default_rng(seed)
    similarity = (rng.integers(0, 25, count) / 25).astype(np.float32)  # with ties, and some of 0
    return Pairs(similarity, rng.random(count) < similarity)


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_has_a_better_f1(seed):
    pairs = random_pairs(seed)
    chosen = choose_group_threshold(pairs, 0.4, SOURCE)
    reached = brute_f1(pairs, chosen.chosen)
    assert reached == pytest.approx(max(brute_f1(pairs, threshold) for threshold in np.linspace(0, 1, 501)))
    assert (pairs.f1(chosen.chosen), pairs.f1(0.4)) == pytest.approx((reached, brute_f1(pairs, 0.4)))
    assert 0 <= chosen.chosen <= 1


def test_threshold_stands_in_the_middle_of_the_gap():
    pairs = Pairs(np.float32([0.9, 0.7, 0.6, 0.2, 0.1]), np.array([True, True, True, False, False]))
    chosen = choose_group_threshold(pairs, 0.65, SOURCE)
    assert (chosen.present, chosen.chosen) == (0.65, 0.4)
    assert (pairs.f1(0.65), pairs.f1(0.4)) == pytest.approx((0.8, 1.0))


def test_similarities_that_four_digits_do_not_tell_apart_are_told_apart():
    low = np.float32(0.5)
    pairs = Pairs(np.array([np.nextafter(low, np.float32(1)), low], np.float32), np.array([True, False]))
    assert pairs.f1(choose_group_threshold(pairs, 0.4, SOURCE).chosen) == 1


@pytest.mark.parametrize(
    ("similarity", "same", "message"),
    [
        ([], [], "of 0 pairs .* 0 are one person's"),
        ([0.5, 0.6], [True, True], "of 2 pairs .* 2 are one person's"),
        ([0.5, 0.6], [False, False], "of 2 pairs .* 0 are one person's"),
        ([0.0, 0.6], [True, False], "finds none of the 1 pairs"),
    ],
    ids=["none", "of one person", "of two persons", "unlike"],
)
def test_nothing_to_choose_from_is_said(similarity, same, message):
    pairs = Pairs(np.array(similarity, np.float32), np.array(same, np.bool_))
    with pytest.raises(DataError, match=rf"held_out\.json.*{message}.*--no-grouping"):
        choose_group_threshold(pairs, 0.4, SOURCE)


@pytest.fixture(scope="module")
def annotations(tiny_dac_checkpoint, tiny_picture, tmp_path_factory):
    """Every other person that the model finds in its picture, and one whom nobody has labelled."""
    with open_model(tiny_dac_checkpoint, device="cpu") as model:
        found = predict(model, [(1, tiny_picture)], min_score=0.0).results
    people = []
    for number, person in enumerate(found[::2], start=1):
        points = np.array(person["keypoints"]).reshape(17, 3)
        points[:, 2] = 2
        people.append(
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": AREA,
             "bbox": [0.0, 0.0, 90.0, 90.0], "keypoints": points.ravel().tolist()}
        )  # fmt: skip
    unlabelled = people[0] | {"id": len(people) + 1, "num_keypoints": 0, "keypoints": [0.0] * 51}
    tree = {
        "images": [{"id": 1, "file_name": tiny_picture.name}],
        "annotations": [*people, unlabelled],
        "categories": [{"id": 1, "name": "person"}],
    }
    path = tmp_path_factory.mktemp("labels") / "own.json"
    path.write_text(json.dumps(tree))
    return path


def _closest(pose, people, sigmas):
    """Index of the person that a pose in px of the image fits best, None below OKS 0.5."""
    fits = []
    for person in people:
        points = np.array(person["keypoints"]).reshape(17, 3)[:, :2]
        squares = [math.dist(a, b) ** 2 for a, b in zip(pose, points, strict=True)]
        fits.append(np.mean([math.exp(-d / (2 * AREA * (2 * s) ** 2)) for d, s in zip(squares, sigmas, strict=True)]))
    return int(np.argmax(fits)) if max(fits) >= 0.5 else None


def test_pairs_are_those_of_all_candidates_that_are_labelled_persons(tiny_dac_checkpoint, tiny_picture, annotations):
    truth = load_ground_truth(annotations)
    with open_model(tiny_dac_checkpoint, device="cpu") as model:
        spec, pipeline = model.spec, model.pipeline
        pairs = collect_pairs(model, truth, [(1, tiny_picture)])
        image = read_stored(tiny_picture)
        letterbox = make_letterbox(image.shape[:2], spec.input, spec.frame)
        maps = {name: values[0] for name, values in pipeline.trunk.run({"image": letterbox.warp(image)[None]}).items()}
        initial = decode_center_offset(maps["heatmaps"], maps["offsets"], spec)
        looks = _looks(pipeline, initial, maps)
    people = [person for person in truth.tree["annotations"] if person["num_keypoints"]]
    owner = [_closest(pose, people, truth.sigmas) for pose in letterbox.to_image(initial.keypoints)]
    areas = [max(16.0, float(np.prod(np.ptp(pose, axis=0)))) for pose in initial.keypoints]
    expected = []
    for i, j in combinations(range(len(owner)), 2):
        if owner[i] is None or owner[j] is None:
            continue
        spread = 0.134**2 * (areas[i] + areas[j]) / 2
        squares = [math.dist(a, b) ** 2 for a, b in zip(initial.keypoints[i], initial.keypoints[j], strict=True)]
        near = np.mean([math.exp(-square / (2 * spread)) for square in squares])
        expected.append((max(0.0, float(looks[i] @ looks[j])) * near, owner[i] == owner[j]))
    assert None in owner
    assert len({kind for kind, one in zip(initial.kinds, owner, strict=True) if one is not None}) == 2
    np.testing.assert_allclose(pairs.similarity, [value for value, _ in expected], rtol=0, atol=1e-4)
    assert pairs.same.tolist() == [same for _, same in expected]
    assert 5 < pairs.same.sum() < len(pairs.same) - 5


def _looks(pipeline, initial, maps):
    context = pose_context(initial.keypoints, maps, pipeline.spec)
    return pipeline.adapt.run({"context": context})["similarity"].astype(np.float64)


def _calibrate(checkpoint, annotations, picture, target, *options):
    words = ["calibrate", checkpoint, "--annotations", annotations, "--images", picture.parent, "--output", target]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu", *options)])
    assert done.exit_code == 0, done.output
    return done.stdout, load_checkpoint(target).spec


def _person_line(checkpoint, truth, picture):
    """What is printed of the persons that a checkpoint finds."""
    with open_model(checkpoint, device="cpu") as model:
        best = choose_thresholds(truth, predict(model, [(1, picture)], min_score=0.0).results).best
    return f"score {best.score:.4f} or more, precision {best.precision:.3f}, recall {best.recall:.3f} at OKS 0.5"


def test_command_writes_the_grouping_and_finds_the_scores_with_it(
    tiny_dac_checkpoint, tiny_picture, annotations, tmp_path
):
    strict, target, truth = (
        tmp_path / "strict.safetensors",
        tmp_path / "new.safetensors",
        load_ground_truth(annotations),
    )
    before = load_checkpoint(tiny_dac_checkpoint)
    save_checkpoint(strict, before.state_dict, with_group_threshold(before.spec, 0.9))
    text, spec = _calibrate(strict, annotations, tiny_picture, target)
    with open_model(tiny_dac_checkpoint, device="cpu") as model:
        pairs = collect_pairs(model, truth, [(1, tiny_picture)])
    chosen = spec.pose_nets.group_threshold
    best, present = brute_f1(pairs, chosen), brute_f1(pairs, 0.9)
    assert best > present
    assert f"above {chosen:.4f}, F1 {best:.3f}; before above 0.9000, F1 {present:.3f}; on {len(pairs.same)} " in text
    assert _person_line(target, truth, tiny_picture) in text
    assert _person_line(strict, truth, tiny_picture) not in text
    assert 0.3 < spec.decode.score_threshold < 0.7  # confidences of an untrained network are near a half


def test_grouping_stays_where_it_is_not_asked_for_or_not_there(
    tiny_dac_checkpoint, tiny_dual_checkpoint, tiny_picture, annotations, tmp_path
):
    target = tmp_path / "calibrated.safetensors"
    text, spec = _calibrate(tiny_dac_checkpoint, annotations, tiny_picture, target, "--no-grouping")
    assert "similarity above" not in text
    assert (spec.pose_nets.group_threshold, spec.decode.score_threshold > 0) == (0.3, True)
    with open_model(tiny_dual_checkpoint, device="cpu") as model:
        person = predict(model, [(1, tiny_picture)], min_score=0.0).results[0]
    tree = json.loads(annotations.read_text())
    tree["annotations"] = [tree["annotations"][0] | {"keypoints": person["keypoints"]}]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(tree))
    assert "similarity above" not in _calibrate(tiny_dual_checkpoint, own, tiny_picture, target)[0]
