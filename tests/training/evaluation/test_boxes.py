"""Box precision and recall: the rules of the paper, and those that it leaves open."""

import numpy as np
import pytest

from posesdk_training.evaluation.boxes import AREA_MODES, EXPANSIONS, SIZES, evaluate_boxes, pose_boxes
from posesdk_training.evaluation.ground_truth import load_ground_truth


def person(number, image_id, box, *, area=None, iscrowd=0, labelled=0):
    """A person with a box; most of them have no labelled keypoints."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": iscrowd,
        "num_keypoints": labelled,
        "keypoints": [0.0] * 51,
        "area": box[2] * box[3] / 2 if area is None else area,
        "bbox": list(box),
    }


def pose(image_id, box, score=0.9):
    """A pose whose tight box (x, y, width, height) is `box`."""
    x, y, width, height = box
    points = np.full((17, 3), (x + width / 2, y + height / 2, 0.5))
    points[0, :2], points[1, :2] = (x, y), (x + width, y + height)
    return {"image_id": image_id, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}


def load(tmp_path, people, persons, images=3, size=1000):
    entries = [{"id": n, "file_name": f"{n}.png", "width": size, "height": size} for n in range(1, images + 1)]
    return load_ground_truth(people.write_truth(tmp_path / "boxes.json", persons, entries))


BOXES = {"S": (10, 10, 40, 50), "M": (100, 100, 90, 90), "L": (300, 300, 200, 300)}


@pytest.mark.parametrize("backend", ["pycocotools", "faster"])
@pytest.mark.parametrize("mode", AREA_MODES)
def test_perfect_boxes_give_a_hundred(tmp_path, people, mode, backend):
    if backend == "faster":
        pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    area = {"S": 1000.0, "M": 5000.0, "L": 50000.0}
    persons = [person(n, n, BOXES[name], area=area[name]) for n, name in enumerate("SML", start=1)]
    results = [pose(n, BOXES[name]) for n, name in enumerate("SML", start=1)]
    found = evaluate_boxes(load(tmp_path, people, persons), results, area_mode=mode, backend=backend)
    assert found.precision == pytest.approx(dict.fromkeys(SIZES, 100.0))
    assert found.recall == pytest.approx(dict.fromkeys(SIZES, 100.0))
    assert found.persons == {"all": 3, "S": 1, "M": 1, "L": 1}


def test_small_person_found_is_no_false_positive_among_large_ones(tmp_path, people):
    truth = load(tmp_path, people, [person(1, 1, BOXES["S"]), person(2, 1, BOXES["L"])])
    found = evaluate_boxes(truth, [pose(1, BOXES["S"], 0.9), pose(1, BOXES["L"], 0.5)], area_mode="bbox")
    assert found.precision["L"] == pytest.approx(100.0)
    assert found.recall["L"] == pytest.approx(100.0)


def test_pose_on_a_crowd_is_ignored(tmp_path, people):
    crowd = person(2, 1, (500, 500, 400, 400), iscrowd=1)
    truth = load(tmp_path, people, [person(1, 1, BOXES["L"]), crowd])
    inside = [pose(1, (520 + 90 * n, 520, 60, 60), 0.95) for n in range(3)]
    found = evaluate_boxes(truth, [*inside, pose(1, BOXES["L"], 0.5)])
    assert found.precision["all"] == pytest.approx(100.0)
    assert found.persons["all"] == 1
    stray = pose(2, BOXES["S"], 0.95)
    assert evaluate_boxes(truth, [stray, pose(1, BOXES["L"], 0.5)]).precision["all"] == pytest.approx(50.0)


def test_ranges_are_open_below_and_closed_above(tmp_path, people):
    persons = [person(1, 1, (0, 0, 64, 64)), person(2, 2, (0, 0, 128, 128)), person(3, 3, (0, 0, 128, 128.1))]
    truth = load(tmp_path, people, persons)
    found = evaluate_boxes(truth, [], area_mode="bbox")
    assert found.persons == {"all": 3, "S": 1, "M": 1, "L": 1}
    for size, number in (("S", 1), ("M", 2), ("L", 3)):
        hit = evaluate_boxes(truth, [pose(number, persons[number - 1]["bbox"])], area_mode="bbox")
        assert {name: value for name, value in hit.recall.items() if value} == pytest.approx(
            {"all": 100 / 3, size: 100.0}
        )


def test_area_mode_moves_a_person_to_another_size(tmp_path, people):
    truth = load(tmp_path, people, [person(1, 1, (0, 0, 100, 100), area=3000.0)])
    assert evaluate_boxes(truth, [], area_mode="ann").persons["S"] == 1
    assert evaluate_boxes(truth, [], area_mode="bbox").persons["M"] == 1


def test_sizes_without_persons_have_no_figure(tmp_path, people):
    found = evaluate_boxes(load(tmp_path, people, [person(1, 1, BOXES["L"])]), [pose(1, BOXES["L"])], area_mode="bbox")
    assert found.recall.keys() == found.precision.keys() == {"all", "L"}


@pytest.mark.parametrize("expand", [0.0, 0.25, 1.0])
def test_box_grows_by_its_share_before_it_is_cut(tmp_path, people, expand):
    truth = load(tmp_path, people, [], size=400)
    inside, over = pose_boxes(truth, [pose(1, (100, 100, 80, 40)), pose(1, (300, 350, 80, 40))], expand)
    assert inside["bbox"][2:] == pytest.approx([80 * (1 + expand), 40 * (1 + expand)])
    assert inside["bbox"][:2] == pytest.approx([100 - 40 * expand, 100 - 20 * expand])
    assert over["bbox"][0] + over["bbox"][2] == pytest.approx(min(380 + 40 * expand, 400))
    assert over["bbox"][1] + over["bbox"][3] == pytest.approx(min(390 + 20 * expand, 400))


def random_scene(tmp_path, people):
    """Sixty persons of all sizes on twelve images, and as many poses that are more or less theirs."""
    rng = np.random.default_rng(7)
    persons, results = [], []
    for number in range(1, 61):
        side = float(np.exp(rng.uniform(np.log(20), np.log(400))))
        box = (*rng.uniform(0, 600, 2).round(1).tolist(), side, side * float(rng.uniform(0.5, 2)))
        persons.append(person(number, 1 + number % 12, box, iscrowd=int(number % 20 == 0)))
        moved = np.array(box) * rng.uniform(0.85, 1.15, 4)
        results.append(pose(1 + number % 12, moved.tolist(), float(rng.random())))
    return load(tmp_path, people, persons, images=12), results


@pytest.mark.parametrize("mode", AREA_MODES)
def test_recall_of_all_is_the_mean_over_sizes(tmp_path, people, mode):
    truth, results = random_scene(tmp_path, people)
    found = evaluate_boxes(truth, results, area_mode=mode)
    pooled = sum(found.persons[name] * found.recall[name] for name in "SML") / found.persons["all"]
    assert found.recall["all"] == pytest.approx(pooled, abs=0.1)
    assert 20 < pooled < 95


@pytest.mark.parametrize("mode", AREA_MODES)
@pytest.mark.parametrize("expand", EXPANSIONS)
def test_both_backends_give_the_same_figures(tmp_path, people, mode, expand):
    pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    truth, results = random_scene(tmp_path, people)
    ours, theirs = (
        evaluate_boxes(truth, results, area_mode=mode, expand=expand, backend=backend)
        for backend in ("pycocotools", "faster")
    )
    assert ours.precision == pytest.approx(theirs.precision, abs=1e-4)
    assert ours.recall == pytest.approx(theirs.recall, abs=1e-4)


def test_no_results_find_nobody(tmp_path, people):
    found = evaluate_boxes(load(tmp_path, people, [person(1, 1, BOXES["M"])]), [])
    assert found.recall["all"] == 0.0


def test_results_on_other_images_do_not_count(tmp_path, people):
    truth = load(tmp_path, people, [person(1, 1, BOXES["L"]), person(2, 2, BOXES["L"])])
    results = [pose(1, BOXES["L"], 0.5), pose(2, BOXES["S"], 0.9)]
    found = evaluate_boxes(truth.of_images([1]), results)
    assert (found.precision["all"], found.recall["all"], found.persons["all"]) == pytest.approx((100.0, 100.0, 1))
