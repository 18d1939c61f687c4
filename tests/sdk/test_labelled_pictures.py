import json

import cv2
import numpy as np
import pytest

from posesdk.labelled_pictures import read_pictures
from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk_runtimes.errors import SourceError

K = len(COCO_17)


def annotation(image_id: int, **changes: object) -> dict:
    entry = {"id": 7, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": K, "area": 900.0}
    return entry | {"keypoints": [5.0, 6.0, 2.0] * K, "bbox": [1.0, 2.0, 40.0, 30.0]} | changes


@pytest.fixture
def write(tmp_path):
    """Writes pictures b.png and a.png of 20 x 30 px, of ids 1 and 2, into `images`, and their annotations."""

    def make(*annotations: dict, **changes: object):
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in ("a", "b"):
            cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((20, 30, 3), ord(name), np.uint8))
        images = [{"id": 2, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
        tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]} | changes
        path = tmp_path / "keypoints.json"
        path.write_text(json.dumps(tree))
        return path

    return make


def test_pictures_of_annotations_come_in_the_order_of_their_ids_with_their_labels(write):
    found = read_pictures(write(annotation(2), annotation(2, iscrowd=1), annotation(1, num_keypoints=0)), COCO_17)
    assert [path.name for path in found.paths] == ["b.png", "a.png"]
    assert [name for name, _ in found] == ["b.png", "a.png"]
    assert [image[0, 0, 0] for _, image in found] == [ord("b"), ord("a")]
    assert [labels.ignored.tolist() for labels in found.labels] == [[True], [False, True]]
    assert [labels.crowds.tolist() for labels in found.labels] == [[False], [False, True]]
    assert found.labels[1].keypoints[0].tolist() == [[5, 6, 2]] * K
    assert found.labels[1].areas.tolist() == [900, 900]
    assert found.labels[1].boxes[0].tolist() == [1, 2, 40, 30]


def test_annotations_of_other_categories_are_left_out(write):
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "person"}]
    found = read_pictures(write(annotation(1, category_id=3), annotation(2), categories=categories), COCO_17)
    assert [len(labels.areas) for labels in found.labels] == [0, 1]


def test_a_limit_takes_the_first_pictures(write):
    found = read_pictures(write(annotation(2)), COCO_17, limit=1)
    assert [path.name for path in found.paths] == ["b.png"]
    assert len(found) == len(found.labels) == 1


def test_annotations_without_persons_are_pictures_without_labels(write):
    assert read_pictures(write(), COCO_17).labels is None


def test_a_folder_gives_its_pictures_by_number(tmp_path):
    for name in ("10.png", "2.png", ".hidden.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_pictures(tmp_path, COCO_17)
    assert [path.name for path in found.paths] == ["2.png", "10.png"]
    assert found.labels is None


def test_crowdpose_persons_have_its_part_of_their_box_as_area(write):
    person = annotation(1, keypoints=[1.0, 2.0, 1.0] * 14)
    del person["area"]
    images = [{"id": 1, "file_name": "b.png", "crowdIndex": 0.5}]
    found = read_pictures(write(person, images=images), CROWDPOSE_14)
    assert found.labels[0].areas.tolist() == pytest.approx([0.53 * 40 * 30])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"images": []}, "no images", id="no-images"),
        pytest.param({"images": [{"id": 1, "file_name": "c.png"}]}, "c.png is not in .*--images", id="missing-picture"),
        pytest.param({"annotations": [{"image_id": 1}]}, "no COCO annotations", id="no-keypoints"),
        pytest.param({"annotations": [annotation(1, keypoints=[1.0] * 42)]}, "has 14 keypoints", id="other-count"),
        pytest.param(
            {"categories": [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE_14.keypoints)}]},
            "labels left_shoulder",
            id="other-names",
        ),
    ],
)
def test_annotations_that_cannot_be_used_are_refused(write, changes, message):
    path = write(annotation(1), **changes)
    with pytest.raises(SourceError, match=message):
        read_pictures(path, COCO_17)


def test_an_annotation_without_area_is_refused(write):
    person = annotation(1)
    del person["area"]
    with pytest.raises(SourceError, match="lacks 'area'"):
        read_pictures(write(person), COCO_17)


def test_what_is_not_there_or_not_json_is_refused(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_pictures(tmp_path / "nothing.json", COCO_17)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(SourceError, match="neither a folder nor"):
        read_pictures(tmp_path / "broken.json", COCO_17)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        read_pictures(tmp_path / "empty", COCO_17)


def test_a_broken_picture_ends_the_reading(write):
    path = write(annotation(1))
    (path.parent / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"a\.png"):
        list(read_pictures(path, COCO_17))
