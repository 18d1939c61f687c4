"""Keypoint AP and AR after three protocols, by two implementations."""

import contextlib
import copy
import io
import json
import sys

import numpy as np
import pytest

from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_training.evaluation.backends import Setting, new_evaluation
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import CROWD_LEVELS, STATS, evaluate_keypoints, stats_of

SIGMAS = np.array(COCO_17.sigmas)


@pytest.fixture
def truth(truth_file):
    return load_ground_truth(truth_file)


def test_truth_fed_back_is_perfect(truth, people):
    found = evaluate_keypoints(truth, people.results_from(truth.path))
    assert tuple(found.stats) == STATS
    assert min(found.stats.values()) >= 0.999
    assert (found.images, found.persons) == (4, 7)


def test_stats_are_those_that_pycocotools_prints(truth, people):
    results = people.results_from(truth.path, noise=12.0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = new_evaluation(truth, results, Setting())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = evaluate_keypoints(truth, results).stats
    assert list(found.values()) == pytest.approx(evaluation.stats.tolist())
    assert 0 < found["AP"] < 1


def test_recall_at_half_oks_is_the_share_of_persons_found(truth, people):
    """Each person is moved by a distance of its own OKS; AR50 counts those above 0.5."""
    shift = 14.0
    found = evaluate_keypoints(truth, people.results_from(truth.path, shift=shift))
    reached = []
    for entry in json.loads(truth.path.read_text())["annotations"]:
        labelled = np.array(entry["keypoints"]).reshape(17, 3)[:, 2] > 0
        if labelled.any():
            oks = np.exp(-(shift**2) / (2 * entry["area"] * (2 * SIGMAS) ** 2))
            reached.append(oks[labelled].mean())
    expected = np.mean(np.array(reached) >= 0.5)
    assert 0 < expected < 1
    assert found.stats["AR50"] == pytest.approx(expected)


def test_no_results_give_zeros(truth):
    assert evaluate_keypoints(truth, []).stats == dict.fromkeys(STATS, 0.0)


def test_figures_of_nothing_are_left_out(tmp_path, people):
    found = evaluate_keypoints(load_ground_truth(people.write_truth(tmp_path / "truth.json", [])), [])
    assert found.stats == {}
    assert (found.images, found.persons) == (4, 0)


def test_false_positive_on_an_image_without_people_lowers_precision(truth, people):
    results = people.results_from(truth.path, score=0.5)
    before = evaluate_keypoints(truth, results).stats
    stray = {**results[0], "image_id": 4, "score": 0.9}
    after = evaluate_keypoints(truth, [*results, stray]).stats
    assert after["AP"] < before["AP"]
    assert after["AR"] == before["AR"]


def test_only_chosen_images_are_evaluated(truth, people):
    part = load_ground_truth(truth.path, image_ids=[2, 4])
    found = evaluate_keypoints(part, people.results_from(truth.path))
    expected = [entry for entry in json.loads(truth.path.read_text())["annotations"] if entry["image_id"] == 2]
    assert (found.images, found.persons) == (2, len(expected))


def test_person_of_number_zero_is_found_like_any_other(tmp_path, people):
    """pycocotools takes a match with annotation 0 for none."""
    path = people.write_truth(tmp_path / "truth.json", [people.annotation(0, 1, np.random.default_rng(0))])
    assert evaluate_keypoints(load_ground_truth(path), people.results_from(path)).stats["AP"] == pytest.approx(1.0)


def test_evaluation_prints_nothing_and_keeps_the_results(truth, people, capsys):
    results = people.results_from(truth.path)
    before = json.dumps(results), json.dumps(truth.tree)
    evaluate_keypoints(truth, results)
    assert (json.dumps(results), json.dumps(truth.tree)) == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_results_with_a_box_are_refused(truth, people):
    results = [{**entry, "bbox": [0, 0, 1, 1]} for entry in people.results_from(truth.path)]
    with pytest.raises(ValueError, match="bbox"):
        evaluate_keypoints(truth, results)


def test_results_on_images_of_another_file_are_refused(truth, people):
    results = [{**people.results_from(truth.path)[0], "image_id": 99}]
    with pytest.raises(ValueError, match="results on image 99"):
        evaluate_keypoints(truth, results)


@pytest.fixture
def crowdpose_file(tmp_path, people):
    """Six images of all crowd levels with two or three persons each, without areas; one of them is not labelled."""
    rng = np.random.default_rng(4)
    levels = (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)
    images = [{"id": n, "file_name": f"{n}.jpg", "crowdIndex": index} for n, index in enumerate(levels, start=1)]
    persons = []
    for n in range(1, 16):
        person = people.annotation(n, 1 + n % 6, rng, count=14, labelled=14 - n % 4 if n != 9 else 0)
        side = float(rng.uniform(60, 250))
        persons.append({key: value for key, value in person.items() if key != "area"} | {"bbox": [0, 0, side, 150.0]})
    return people.write_truth(tmp_path / "crowdpose.json", persons, images)


def test_crowdpose_truth_fed_back_is_perfect(crowdpose_file, people):
    truth = load_ground_truth(crowdpose_file, CROWDPOSE_14)
    found = evaluate_keypoints(truth, people.results_from(crowdpose_file))
    assert tuple(found.stats) == stats_of("crowdpose")
    assert min(found.stats.values()) >= 0.999
    assert found.persons == 14


def test_ochuman_truth_fed_back_is_perfect(truth_file, people):
    """Areas are those of the boxes there: 200 x 200 px, so that nobody is of medium size."""
    truth = load_ground_truth(truth_file, protocol="ochuman")
    found = evaluate_keypoints(truth, people.results_from(truth_file)).stats
    assert found == pytest.approx(dict.fromkeys([name for name in STATS if not name.endswith("M")], 1.0), abs=1e-3)


def test_larger_area_makes_ochuman_more_lenient(truth_file, people):
    results = people.results_from(truth_file, noise=12.0)
    coco, ochuman = (
        evaluate_keypoints(load_ground_truth(truth_file, protocol=name), results).stats["AP"]
        for name in ("coco", "ochuman")
    )
    assert ochuman > coco + 0.1


def test_missing_backend_says_how_to_get_it(truth, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingDependencyError, match="pip install faster-coco-eval"):
        evaluate_keypoints(truth, [], backend="faster")


def test_ap_of_a_crowd_level_is_that_of_its_images_alone(crowdpose_file, people):
    results = people.results_from(crowdpose_file, noise=15.0)
    whole = evaluate_keypoints(load_ground_truth(crowdpose_file, CROWDPOSE_14), results).stats
    for name, ids in {"AP_easy": [1, 2], "AP_medium": [3, 4], "AP_hard": [5, 6]}.items():
        part = load_ground_truth(crowdpose_file, CROWDPOSE_14, image_ids=ids)
        kept = [result for result in results if result["image_id"] in ids]
        assert whole[name] == pytest.approx(evaluate_keypoints(part, kept).stats["AP"], abs=1e-4)
        assert 0 < whole[name] < 1


def test_level_without_images_has_no_figure(crowdpose_file, people):
    part = load_ground_truth(crowdpose_file, CROWDPOSE_14, image_ids=[1, 2, 3])
    stats = evaluate_keypoints(part, []).stats
    assert stats.keys() & CROWD_LEVELS.keys() == {"AP_easy", "AP_medium"}


def test_crowdpose_equals_the_other_implementations_own_protocol(crowdpose_file, people):
    """faster-coco-eval brings CrowdPose itself: 0.53 of the box as area, and the three levels."""
    faster = pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    results = people.results_from(crowdpose_file, noise=15.0)
    actual = faster.COCO(str(crowdpose_file))
    for entry in actual.dataset["annotations"]:
        entry["area"] = 1.0  # read, and not used
    evaluation = faster.COCOeval_faster(
        actual,
        actual.loadRes(copy.deepcopy(results)),
        "keypoints_crowd",
        kpt_oks_sigmas=CROWDPOSE_14.sigma_array,
        use_area=False,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    stats = evaluation.eval
    truth = load_ground_truth(crowdpose_file, CROWDPOSE_14)
    found = evaluate_keypoints(truth, results).stats
    precision, recall = stats["precision"][:, :, 0, 0, 0], stats["recall"][:, 0, 0, 0]
    expected = [precision.mean(), precision[0].mean(), precision[5].mean(), recall.mean(), recall[0], recall[5]]
    expected += evaluation.get_type_result(first=0.2, second=0.8)
    assert list(found.values()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["coco", "ochuman", "crowdpose"])
def test_both_backends_give_the_same_figures(truth_file, crowdpose_file, people, name):
    pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    path, skeleton = (crowdpose_file, CROWDPOSE_14) if name == "crowdpose" else (truth_file, COCO_17)
    truth = load_ground_truth(path, skeleton, protocol=name)
    results = people.results_from(path, noise=14.0)
    results += [entry | {"score": 0.3, "image_id": 1} for entry in results[:9]]
    ours = evaluate_keypoints(truth, results).stats
    theirs = evaluate_keypoints(truth, results, backend="faster").stats
    assert ours.keys() == theirs.keys()
    assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=1e-4)
    assert 0 < ours["AP"] < 1


@pytest.mark.parametrize("backend", ["pycocotools", "faster"])
def test_truth_of_real_photos_fed_back_is_perfect(shared, people, backend):
    if backend == "faster":
        pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    path = shared("data", "coco_eval", "keypoints.json")
    truth = load_ground_truth(path)
    found = evaluate_keypoints(truth, people.results_from(path), backend=backend)
    assert found.images == 300
    assert min(found.stats.values()) >= 0.999


def test_backends_agree_on_real_persons(shared, people):
    pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    truth = load_ground_truth(shared("data", "coco_eval", "keypoints.json"))
    results = people.results_from(truth.path, noise=6.0)
    ours, theirs = (evaluate_keypoints(truth, results, backend=name).stats for name in ("pycocotools", "faster"))
    assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=1e-4)
    assert 0.2 < ours["AP"] < 0.9
