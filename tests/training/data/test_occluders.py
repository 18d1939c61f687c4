import json

import cv2
import numpy as np
import pytest

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.data.augment import Placement, transform_keypoints
from posesdk_training.data.coco import ImageRecord, PersonRecord
from posesdk_training.data.occluders import Occluders
from posesdk_training.settings.samples import OccluderConfig

SIZE = 100


@pytest.fixture
def folder(tmp_path):
    """One cutout: a red bar, 20 px wide and 60 tall, opaque, with keypoints 0 at its top and 5, 6 at its sides."""
    image = np.zeros((60, 20, 4), dtype=np.uint8)
    image[...] = (0, 0, 255, 255)
    keypoints = np.zeros((17, 3))
    keypoints[[0, 5, 6]] = [[9.5, 2, 2], [17, 30, 2], [2, 30, 2]]
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), image)
    tree = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "keypoints": keypoints.ravel().tolist(), "bbox": [0, 0, 20, 60], "area": 1200}
        ],
        "categories": [],
    }
    (tmp_path / "keypoints.json").write_text(json.dumps(tree))
    return tmp_path


def photo(flip=False):
    """A gray sample at twice the size of its photo, with a person whose keypoints are a grid around the middle."""
    grid = np.stack(np.meshgrid(np.linspace(5, 45, 5), np.linspace(5, 45, 4)), -1).reshape(-1, 2)[:17]
    keypoints = np.concatenate([grid, np.full((17, 1), 2.0)], axis=1).astype(np.float32)
    person = PersonRecord(keypoints, np.array([5, 5, 45, 45], dtype=np.float32), 1600.0, False)
    placement = Placement(np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]]), SIZE, flip)
    pixels = np.full((SIZE, SIZE, 3), 128, dtype=np.uint8)
    return pixels, ImageRecord(None, 1, (person,), ()), placement


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flipped"])
@pytest.mark.parametrize("seed", range(5))
def test_covered_keypoints_become_hidden_and_the_cutout_a_person(folder, flip, seed):
    pixels, record, placement = photo(flip)
    occluders = Occluders(OccluderConfig(folder=folder, probability=1.0, height=(0.5, 0.5)), COCO_17)
    pasted, changed = occluders.paste(np.random.default_rng(seed), pixels, record, placement)
    red = (pasted != 128).any(2)
    real, cutout = changed.persons
    for points, v in zip(real.keypoints[:, :2] @ placement.flipped_matrix[:, :2].T, real.keypoints[:, 2], strict=True):
        column, row = np.round(points + placement.flipped_matrix[:, 2]).astype(int)
        near = red[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if near.all() or not near.any():  # not on the edge of the bar
            assert v == (1 if near.all() else 2)
    keypoints = transform_keypoints(cutout.keypoints[None], placement, COCO_17.flip_indices)[0]
    left, right = keypoints[5], keypoints[6]
    for x, y, v in keypoints[[0, 5, 6]]:
        if 0 <= x < SIZE - 1 and 0 <= y < SIZE - 1:
            assert red[round(float(y)), round(float(x))]
        assert v == 2
    assert left[0] > right[0]  # whether mirrored or not, the left side of somebody seen from the front
    assert np.linalg.norm(left[:2] - right[:2]) == pytest.approx(15 * 50 / 60, abs=0.1)


def test_record_that_was_read_is_not_changed(folder):
    pixels, record, placement = photo()
    Occluders(OccluderConfig(folder=folder, probability=1.0), COCO_17).paste(
        np.random.default_rng(0), pixels, record, placement
    )
    assert (record.persons[0].keypoints[:, 2] == 2).all()
    assert (pixels == 128).all()


def test_nothing_is_pasted_with_probability_zero(folder):
    pixels, record, placement = photo()
    occluders = Occluders(OccluderConfig(folder=folder, probability=0.0), COCO_17)
    same, unchanged = occluders.paste(np.random.default_rng(0), pixels, record, placement)
    assert same is pixels
    assert unchanged is record


def test_folder_without_cutouts_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "keypoints.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="synthesize --cutouts"):
        Occluders(OccluderConfig(folder=tmp_path), COCO_17)
