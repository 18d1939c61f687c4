import json

import cv2
import numpy as np
import pytest
import torch

from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, InputSpec, ModelSpec
from posesdk_runtimes.errors import CheckpointError, DataError, SourceError
from posesdk_training.checkpoint import save_checkpoint
from posesdk_training.evaluate import (
    STATS,
    count_false_positives,
    evaluate_keypoints,
    predict,
    read_image_list,
    recall_of_tall_persons,
)
from posesdk_training.evaluated_model import open_model
from posesdk_training.models.build import build_model

SIGMAS = ModelSpec(name="any").skeleton.sigma_array


def annotation(number, image_id, rng, *, labelled=17, area=5000.0, iscrowd=0):
    points = np.concatenate([rng.uniform(10, 190, (17, 2)).round(1), np.full((17, 1), 2.0)], axis=1)
    points[labelled:] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": iscrowd,
        "num_keypoints": labelled,
        "keypoints": points.ravel().tolist(),
        "area": area,
        "bbox": [0.0, 0.0, 200.0, 200.0],
    }


def write_truth(path, annotations, images=4):
    tree = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture
def truth(tmp_path):
    """Seven labelled persons of both area ranges on images 1 to 3, a crowd; image 4 has nobody."""
    rng = np.random.default_rng(0)
    people = [annotation(n, 1 + n % 3, rng, area=(2000.0, 20000.0)[n % 2], labelled=17 - n) for n in range(1, 8)]
    crowd = annotation(8, 1, rng, labelled=0, iscrowd=1)
    return write_truth(tmp_path / "truth.json", [*people, crowd])


def results_from(path, *, shift=0.0, score=None):
    """The labelled persons of an annotation file as results, moved to the right."""
    rng = np.random.default_rng(1)
    results = []
    for entry in json.loads(path.read_text())["annotations"]:
        if entry["num_keypoints"]:
            points = np.array(entry["keypoints"]).reshape(17, 3)
            points[:, 0] += shift
            points[:, 2] = 0.9
            value = float(rng.uniform(0.5, 1)) if score is None else score
            result = {"image_id": entry["image_id"], "category_id": 1, "score": value}
            results.append(result | {"keypoints": points.ravel().tolist()})
    return results


def test_truth_fed_back_is_perfect(truth):
    found = evaluate_keypoints(truth, results_from(truth))
    assert found.stats.keys() == set(STATS)
    assert min(found.stats.values()) >= 0.999
    assert (found.images, found.persons) == (4, 7)


def test_recall_at_half_oks_is_the_share_of_persons_found(truth):
    """Each person is moved by a distance of its own OKS; AR50 counts those above 0.5."""
    shift = 14.0
    found = evaluate_keypoints(truth, results_from(truth, shift=shift))
    reached = []
    for entry in json.loads(truth.read_text())["annotations"]:
        labelled = np.array(entry["keypoints"]).reshape(17, 3)[:, 2] > 0
        if labelled.any():
            oks = np.exp(-(shift**2) / (2 * entry["area"] * (2 * SIGMAS) ** 2))
            reached.append(oks[labelled].mean())
    expected = np.mean(np.array(reached) >= 0.5)
    assert 0 < expected < 1
    assert found.stats["AR50"] == pytest.approx(expected)


def test_no_results_give_zeros(truth):
    found = evaluate_keypoints(truth, [])
    assert found.stats == dict.fromkeys(STATS, 0.0)


def test_figures_of_nothing_are_left_out(tmp_path):
    found = evaluate_keypoints(write_truth(tmp_path / "truth.json", []), [])
    assert found.stats == {}
    assert (found.images, found.persons) == (4, 0)


def test_false_positive_on_an_image_without_people_lowers_precision(truth):
    results = results_from(truth, score=0.5)
    before = evaluate_keypoints(truth, results).stats
    stray = {**results[0], "image_id": 4, "score": 0.9}
    after = evaluate_keypoints(truth, [*results, stray]).stats
    assert after["AP"] < before["AP"]
    assert after["AR"] == before["AR"]


def test_only_chosen_images_are_evaluated(truth):
    found = evaluate_keypoints(truth, results_from(truth), image_ids=[2, 4])
    expected = [entry for entry in json.loads(truth.read_text())["annotations"] if entry["image_id"] == 2]
    assert (found.images, found.persons) == (2, len(expected))


def test_evaluation_prints_nothing_and_keeps_the_results(truth, capsys):
    results = results_from(truth)
    before = json.dumps(results)
    evaluate_keypoints(truth, results)
    assert json.dumps(results) == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_results_with_a_box_are_refused(truth):
    results = [{**entry, "bbox": [0, 0, 1, 1]} for entry in results_from(truth)]
    with pytest.raises(ValueError, match="bbox"):
        evaluate_keypoints(truth, results)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": [{"id": 1}], "categories": []}'])
def test_foreign_annotations_are_named(tmp_path, text):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"foreign\.json"):
        evaluate_keypoints(path, [])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny untrained model; its head biases make it find somebody in every picture."""
    spec = ModelSpec(
        name="tiny",
        input=InputSpec(resize="long", side=64, multiple=32),
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4, activation="sigmoid"),
        decode=DecodeSpec(nms_distance=0),
        adaptation=AdaptationSpec(local_size=3, global_size=9, reweigh_sigma=2.0, message_channels=(8, 8, 8)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_model(spec)
    model.final_layer_cls.bias.data.zero_()
    model.joints_mlp[-1].bias.data.fill_(0.5)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, model.state_dict(), spec)
    return path


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(2)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(1, 5):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (50 + number, 70, 3), dtype=np.uint8))
    return folder


def test_checkpoint_is_measured_end_to_end(checkpoint, truth, photos):
    images = read_image_list(truth, photos)
    done = []
    with open_model(checkpoint, device="cpu") as model:
        results = predict(model, images, on_image=done.append)
    assert done == [1, 2, 3, 4]
    per_image = {number: [r for r in results if r["image_id"] == number] for number, _ in images}
    assert all(0 < len(found) <= 30 for found in per_image.values())
    assert min(result["score"] for result in results) >= 0.01
    assert not any("bbox" in result for result in results)
    assert evaluate_keypoints(truth, results).images == 4


def test_only_the_first_images_by_id_are_taken(truth, photos):
    assert [number for number, _ in read_image_list(truth, photos, limit=2)] == [1, 2]


def test_adaptation_and_flip_test_can_be_changed_for_a_checkpoint(checkpoint, truth, photos):
    images = read_image_list(truth, photos, limit=1)
    found = []
    for changes in ({}, {"adaptation": "none"}, {"flip_test": True}):
        with open_model(checkpoint, device="cpu", **changes) as model:
            found.append(predict(model, images))
            assert model.spec.adaptation.level == changes.get("adaptation", "full")
            assert model.spec.decode.flip_test == changes.get("flip_test", False)
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_false_positives_are_persons_above_the_threshold(checkpoint, photos):
    with open_model(checkpoint, device="cpu") as model:
        everybody = count_false_positives(model, photos, threshold=0.0)
        nobody = count_false_positives(model, photos, threshold=1.0)
    assert everybody.images == nobody.images == 4
    assert everybody.persons > 0
    assert everybody.per_image == everybody.persons / 4
    assert nobody.persons == 0


def test_missing_image_stops_the_evaluation(checkpoint, truth, tmp_path):
    with open_model(checkpoint, device="cpu") as model, pytest.raises(SourceError, match=r"1\.png"):
        predict(model, read_image_list(truth, tmp_path / "nowhere"))


def test_folder_without_pictures_is_named(checkpoint, tmp_path):
    with open_model(checkpoint, device="cpu") as model, pytest.raises(DataError, match="no pictures"):
        count_false_positives(model, tmp_path)


def test_checkpoint_runs_with_torch_only(checkpoint):
    with pytest.raises(ValueError, match="torch"), open_model(checkpoint, runtime="openvino"):
        pass


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent"), open_model(tmp_path / "absent.safetensors"):
        pass


def test_recall_of_tall_persons_counts_those_above_half_the_image_that_are_found_above_the_threshold(truth):
    tree = json.loads(truth.read_text())
    for image in tree["images"]:
        image["height"] = 300 if image["id"] == 3 else 500  # the boxes are 200 high: tall in image 3 alone
    truth.write_text(json.dumps(tree))
    tall = [entry["id"] for entry in tree["annotations"] if entry["image_id"] == 3]
    assert len(tall) == 2
    results = results_from(truth, score=0.5)
    last = [index for index, result in enumerate(results) if result["image_id"] == 3][-1]
    results[last]["score"] = 0.05
    everyone = recall_of_tall_persons(truth, results, threshold=0.0)
    above = recall_of_tall_persons(truth, results, threshold=0.1)
    moved = recall_of_tall_persons(truth, results_from(truth, shift=400.0), threshold=0.0)
    assert (everyone.found, everyone.persons) == (2, 2)
    assert (above.found, above.persons) == (1, 2)
    assert (moved.found, moved.persons) == (0, 2)
