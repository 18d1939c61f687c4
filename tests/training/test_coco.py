"""Annotation files that are not what the configuration says."""

import json

import pytest

from posesdk.skeleton import COCO_17, Skeleton
from posesdk_runtimes.errors import DataError
from posesdk_training.config import DatasetConfig
from posesdk_training.data.coco import load_keypoint_set

PERSON = {"id": 7, "image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2] * 17}
TREE = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [PERSON], "categories": []}
PAIR = Skeleton(name="pair", keypoints=("left", "right"), edges=(), flip_pairs=((0, 1),), sigmas=(0.1, 0.1))


def load(folder, content, skeleton=COCO_17, images=None):
    path = folder / "truth.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return load_keypoint_set(DatasetConfig(name="set", annotations=path, images=images or folder), skeleton)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"{",
        [1, 2],
        {"images": []},
        TREE | {"images": [1]},
        TREE | {"annotations": [PERSON | {"keypoints": [0.0] * 50}]},
        TREE | {"categories": ["person"]},
    ],
)
def test_file_of_another_kind_is_refused_by_name(tmp_path, content):
    with pytest.raises(DataError, match=r"'set'.*truth\.json"):
        load(tmp_path, content)


def test_missing_file_is_named_with_what_to_check(tmp_path):
    source = DatasetConfig(name="set", annotations=tmp_path / "none.json", images=tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file.*data\.root"):
        load_keypoint_set(source, COCO_17)


def test_missing_image_folder_is_said_before_any_image_is_read(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load(tmp_path, TREE, images=tmp_path / "nowhere")


@pytest.mark.parametrize("categories", [[], [{"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}]])
def test_annotations_of_another_skeleton_are_refused(tmp_path, categories):
    with pytest.raises(DataError, match="17"):
        load(tmp_path, TREE | {"categories": categories}, skeleton=PAIR)


def test_person_without_a_keypoint_list_is_unlabelled(tmp_path):
    person = {key: value for key, value in PERSON.items() if key != "keypoints"}
    (image,) = load(tmp_path, TREE | {"annotations": [person]}).images
    assert not image.persons[0].is_labelled
    assert len(image.masked) == 1
