import json

import cv2
import numpy as np
import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.synthetic.backgrounds import Backgrounds, background_photos
from posesdk_training.synthetic.camera import random_camera


def test_windows_stay_away_from_annotated_people(tmp_path):
    photo = np.zeros((120, 200, 3), dtype=np.uint8)
    photo[:, 120:] = 255  # the person, with the margin around it
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 120}],
        "annotations": [{"image_id": 1, "bbox": [140, 0, 60, 80]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(tree))
    backgrounds = Backgrounds((background_photos(f"{tmp_path / 'a.json'}+{tmp_path}"),))
    rng = np.random.default_rng(0)
    pieces = [backgrounds.piece(rng, (32, 32)) for _ in range(20)]
    assert any((piece == 0).all() for piece in pieces)
    assert not any((piece == 255).any() and (piece == 0).any() for piece in pieces)


def test_photos_with_a_crowd_are_left_out(tmp_path):
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 120}],
        "annotations": [{"image_id": 1, "bbox": [10 * k, 0, 5, 5]} for k in range(6)],
    }
    (tmp_path / "a.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="no background photos"):
        background_photos(f"{tmp_path / 'a.json'}+{tmp_path}")


@pytest.mark.parametrize("seed", range(6))
def test_drawn_place_fills_the_picture(seed):
    rng = np.random.default_rng(seed)
    place = Backgrounds(())(rng, random_camera(rng, (64, 48)))
    assert place.shape == (48, 64, 3)
    assert np.isfinite(place).all()
    assert place.min() >= 0
    assert place.max() <= 255
