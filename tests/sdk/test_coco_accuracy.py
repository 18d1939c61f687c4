import json

import numpy as np
import pytest

from posesdk.coco_accuracy import STATS, CocoEvaluation, LabelledPersons
from posesdk.skeleton import COCO_17

K = len(COCO_17)


def labels_of(entries: list[dict]) -> LabelledPersons:
    crowds = np.array([bool(entry["iscrowd"]) for entry in entries], bool)
    return LabelledPersons(
        np.array([entry["keypoints"] for entry in entries], np.float64).reshape(-1, K, 3),
        np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4),
        np.array([entry["area"] for entry in entries], np.float64),
        crowds | np.array([entry["num_keypoints"] == 0 for entry in entries], bool),
        crowds,
    )


def evaluate(tree: dict, results: list[dict]):
    evaluation = CocoEvaluation(COCO_17)
    for number in sorted(entry["id"] for entry in tree["images"]):
        found = [result for result in results if result["image_id"] == number]
        points = np.array([result["keypoints"] for result in found], np.float64).reshape(-1, K, 3)
        labels = labels_of([entry for entry in tree["annotations"] if entry["image_id"] == number])
        evaluation.add(labels, points[..., :2], [result["score"] for result in found])
    return evaluation.summary()


def pycocotools_stats(path, results):
    pytest.importorskip("pycocotools", reason="the reference is pycocotools")
    from posesdk_training.evaluation.ground_truth import load_ground_truth
    from posesdk_training.evaluation.keypoints import evaluate_keypoints

    return evaluate_keypoints(load_ground_truth(path), results)


def random_tree(rng: np.random.Generator) -> dict:
    """Some pictures with persons of all sizes, crowds, persons without keypoints, and pictures without anybody."""
    annotations = []
    for number in range(int(rng.integers(0, 40))):
        side = float(rng.choice([20, 60, 150, 400]))
        corner = rng.uniform(0, 200, 2)
        points = np.concatenate([rng.uniform(0, side, (K, 2)) + corner, rng.integers(0, 3, (K, 1))], axis=1)
        if rng.random() < 0.2:
            points[:] = 0
        annotations.append(
            {
                "id": number,
                "image_id": int(rng.integers(1, 9)),
                "category_id": 1,
                "iscrowd": int(rng.random() < 0.15),
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": points.ravel().tolist(),
                "area": float(side**2 * rng.uniform(0.3, 1)),
                "bbox": [*corner.tolist(), side, side],
            }
        )
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, 10)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def random_results(tree: dict, rng: np.random.Generator) -> list[dict]:
    """Persons near and far from the annotated ones, several for one, more than 20 in a picture, with equal scores."""
    results = []
    for entry in tree["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            points = np.array(entry["keypoints"]).reshape(K, 3)
            points[:, :2] += rng.normal(0, 1, (K, 2)) * entry["bbox"][2] * rng.choice([0.0, 0.02, 0.1, 0.5])
            results.append((entry["image_id"], points))
    strays = int(rng.integers(0, 60))
    results += [(int(rng.choice([1, 1, 9])), rng.uniform(0, 300, (K, 3))) for _ in range(strays)]
    return [
        {
            "image_id": number,
            "category_id": 1,
            "keypoints": points.ravel().tolist(),
            "score": float(rng.integers(1, 12) / 12),
        }
        for number, points in results
    ]


@pytest.mark.parametrize("seed", range(25))
def test_random_results_have_the_figures_of_pycocotools(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    results = random_results(tree, rng)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(tree))
    expected, found = pycocotools_stats(path, results), evaluate(tree, results)
    assert list(found.stats) == list(expected.stats)
    assert found.stats == pytest.approx(expected.stats, abs=1e-9)
    assert (found.images, found.persons) == (expected.images, expected.persons)


@pytest.mark.parametrize("noise", [3.0, 8.0])
def test_real_persons_have_the_figures_of_pycocotools(shared, noise):
    path = shared("data", "coco_eval", "keypoints.json")
    tree, rng = json.loads(path.read_text()), np.random.default_rng(5)
    results = []
    for entry in tree["annotations"]:
        points = np.array(entry["keypoints"], np.float64).reshape(K, 3)
        points[:, :2] += rng.normal(0, noise, (K, 2))
        score = float(rng.uniform())
        for place in (points, points + np.array([40, 0, 0])) if score < 0.3 else (points,):
            result = {"image_id": entry["image_id"], "category_id": 1, "keypoints": place.ravel().tolist()}
            results.append(result | {"score": score})
    expected, found = pycocotools_stats(path, results), evaluate(tree, results)
    assert 0.1 < expected.stats["AP"] < 0.9
    assert found.stats == pytest.approx(expected.stats, abs=1e-9)


def one_person(**changes: object) -> dict:
    points = np.concatenate([np.random.default_rng(0).uniform(0, 100, (K, 2)), np.full((K, 1), 2.0)], axis=1)
    entry = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": K, "area": 5000.0}
    entry |= {"keypoints": points.ravel().tolist(), "bbox": [0.0, 0.0, 100.0, 100.0]} | changes
    return {"images": [{"id": 1}], "annotations": [entry]}


def found_at(tree: dict, shift: float) -> list[dict]:
    points = np.array(tree["annotations"][0]["keypoints"]).reshape(K, 3) + np.array([shift, 0, 0])
    return [{"image_id": 1, "keypoints": points.ravel().tolist(), "score": 0.9}]


def test_similarity_of_a_keypoint_is_that_of_its_distance():
    tree = one_person()
    found = evaluate(tree, found_at(tree, 5.0))
    for name, sigma in zip(COCO_17.keypoints, COCO_17.sigmas, strict=True):
        assert found.keypoints[name] == pytest.approx(np.exp(-25 / (2 * 5000 * (2 * sigma) ** 2)))


def test_a_person_who_is_not_found_has_no_similarities():
    tree = one_person()
    found = evaluate(tree, found_at(tree, 500.0))
    assert found.keypoints == {}
    assert found.stats["AP"] == found.stats["AR"] == 0


def test_keypoints_that_are_not_labelled_have_no_similarity():
    points = np.full((K, 3), 50.0)
    points[1:, 2] = 0
    tree = one_person(keypoints=points.ravel().tolist(), num_keypoints=1)
    assert evaluate(tree, found_at(tree, 0.0)).keypoints == {COCO_17.keypoints[0]: 1.0}


def test_nobody_to_be_found_gives_no_figures():
    found = evaluate({"images": [{"id": 1}], "annotations": []}, found_at(one_person(), 0.0))
    assert (found.stats, found.images, found.persons) == ({}, 1, 0)


def test_figures_can_be_written_as_json():
    tree = one_person()
    written = json.loads(json.dumps(evaluate(tree, found_at(tree, 0.0)).to_dict(), allow_nan=False))
    assert list(written["stats"]) == [name for name in STATS if not name.endswith("L")]
    assert written["stats"]["AP"] == pytest.approx(1)
