"""What protocols take from an annotation file."""

import json

import numpy as np
import pytest

from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk_runtimes.errors import DataError
from posesdk_training.evaluation.ground_truth import load_ground_truth


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": [{"id": 1}], "categories": []}'])
def test_foreign_annotations_are_named(tmp_path, text):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"foreign\.json"):
        load_ground_truth(path)


def test_only_the_first_images_by_id_are_taken(truth_file, tmp_path):
    truth = load_ground_truth(truth_file, limit=2)
    assert truth.image_list(tmp_path) == [(1, tmp_path / "1.png"), (2, tmp_path / "2.png")]


def file_of(tmp_path, people, count, name="truth.json", **image):
    person = people.annotation(1, 1, np.random.default_rng(0), count=count, labelled=count)
    return people.write_truth(tmp_path / name, [person], [{"id": 1, "file_name": "1.jpg"} | image])


def test_protocol_is_seen_from_the_file(tmp_path, people):
    crowd = file_of(tmp_path, people, 14, crowdIndex=0.5)
    assert load_ground_truth(crowd, CROWDPOSE_14).protocol == "crowdpose"
    hidden = file_of(tmp_path, people, 17, name="OCHuman_val.json")
    assert load_ground_truth(hidden).protocol == "ochuman"
    assert load_ground_truth(file_of(tmp_path, people, 17)).protocol == "coco"
    assert load_ground_truth(file_of(tmp_path, people, 17), protocol="ochuman").protocol == "ochuman"


@pytest.mark.parametrize(("protocol", "area"), [("coco", 5000.0), ("ochuman", 40000.0), ("crowdpose", 21200.0)])
def test_area_of_a_person_is_the_protocols(tmp_path, people, protocol, area):
    """The boxes are 200 x 200 px."""
    skeleton = CROWDPOSE_14 if protocol == "crowdpose" else COCO_17
    truth = load_ground_truth(file_of(tmp_path, people, len(skeleton)), skeleton, protocol=protocol)
    assert [person["area"] for person in truth.persons] == pytest.approx([area])


def test_coco_without_areas_is_refused(tmp_path, people):
    path = file_of(tmp_path, people, 17)
    tree = json.loads(path.read_text())
    del tree["annotations"][0]["area"]
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="lacks 'area'"):
        load_ground_truth(path)


def test_other_keypoints_than_the_models_are_refused(tmp_path, people):
    with pytest.raises(DataError, match="has 14 keypoints, the model 17"):
        load_ground_truth(file_of(tmp_path, people, 14))
    with pytest.raises(DataError, match="CrowdPose has 14 keypoints"):
        load_ground_truth(file_of(tmp_path, people, 17), protocol="crowdpose")


def test_keypoints_in_another_order_are_refused(tmp_path, people):
    path = file_of(tmp_path, people, 17)
    tree = json.loads(path.read_text())
    tree["categories"][0]["keypoints"] = [name.upper() for name in COCO_17.keypoints]
    path.write_text(json.dumps(tree))
    assert load_ground_truth(path).category == tree["categories"][0]["id"]
    tree["categories"][0]["keypoints"].reverse()
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="names and order"):
        load_ground_truth(path)
