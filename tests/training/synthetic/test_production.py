import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.settings.data import DatasetConfig
from posesdk_training.synthetic.generator import Settings
from posesdk_training.synthetic.production import produce
from posesdk_training.synthetic.writer import OutputFolder


@pytest.fixture(scope="session")
def settings(assets, renderer):
    return Settings(assets, (), 128, 3, (1, 3), characters=2, poses=20)


@pytest.fixture(scope="session")
def whole(settings, tmp_path_factory):
    """A run of six pictures that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    produce(settings, folder, count=6, workers=1)
    return folder


def pictures(folder):
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


def test_interrupted_run_goes_on_to_the_same_pictures(settings, whole, tmp_path):
    produce(settings, tmp_path, count=3, workers=1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"index": 3, "file_na')  # killed while a line was written
    seen = []
    produce(settings, tmp_path, count=6, workers=1, on_picture=seen.append)
    assert seen == [4, 5, 6]
    assert pictures(tmp_path) == pictures(whole)
    assert (tmp_path / "keypoints.json").read_bytes() == (whole / "keypoints.json").read_bytes()


def test_other_processes_make_the_same_pictures(settings, whole, tmp_path):
    produce(settings, tmp_path, count=6, workers=2)
    assert pictures(tmp_path) == pictures(whole)
    assert (tmp_path / "keypoints.json").read_bytes() == (whole / "keypoints.json").read_bytes()


def test_folder_of_a_run_with_other_settings_is_refused(settings, whole):
    with pytest.raises(DataError, match="seed 3 there, 4 now"):
        produce(replace(settings, seed=4), whole, count=6, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_run_without_its_backgrounds_leaves_the_folder_to_the_corrected_one(tmp_path, workers):
    refused = Settings(tmp_path, (str(tmp_path / "none"),), 128, 3, (1, 3))
    with pytest.raises(DataError, match="no background photos in"):
        produce(refused, tmp_path / "out", count=1, workers=workers)
    assert OutputFolder(tmp_path / "out", replace(refused, backgrounds=())).missing(1) == [0]


def test_annotations_are_read_as_a_data_set(whole):
    config = DatasetConfig(name="synthetic", annotations=whole / "keypoints.json", images=whole / "images")
    images = load_keypoint_set(config, COCO_17).images
    assert len(images) == 6
    assert all(image.path.exists() for image in images)
    people = [person for image in images for person in image.persons if person.is_labelled]
    assert people
    for person in people:
        known = person.keypoints[person.keypoints[:, 2] > 0]
        assert (known[:, :2] >= -0.5).all()
        assert (known[:, :2] < 127.5).all()


def test_masks_have_the_annotated_areas_and_boxes(whole):
    from pycocotools import mask

    tree = json.loads((whole / "keypoints.json").read_text())
    for annotation in tree["annotations"]:
        assert mask.area(annotation["segmentation"]) == annotation["area"]
        np.testing.assert_allclose(mask.toBbox(annotation["segmentation"]), annotation["bbox"])


def test_cutouts_are_whole_people_with_alpha(settings, tmp_path):
    produce(replace(settings, product="cutouts", people=(1, 1)), tmp_path, count=2, workers=1, suffix=".png")
    tree = json.loads((tmp_path / "keypoints.json").read_text())
    for entry, annotation in zip(tree["images"], tree["annotations"], strict=True):
        image = cv2.imread(str(tmp_path / "images" / entry["file_name"]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (entry["height"], entry["width"], 4)
        assert max(image.shape[:2]) < 127
        for x, y, v in np.reshape(annotation["keypoints"], (17, 3)):
            if v == 2:
                row, column = round(y), round(x)
                assert image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, 3].max() > 0
