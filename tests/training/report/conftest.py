"""A small evaluation made by hand: what is right, missed and wrong in it is known."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from posesdk.skeleton import Skeleton
from posesdk_training.evaluation.ground_truth import load_ground_truth

TRIANGLE = Skeleton(
    name="triangle", keypoints=("left", "right", "top"), edges=((0, 1), (1, 2)), flip_pairs=((0, 1),), sigmas=(0.1,) * 3
)


def keypoints(x, y, size):
    """Visible corners of a triangle in a square of `size` px at (x, y)."""
    return [x, y + size, 2, x + size, y + size, 2, x + size / 2, y, 2]


def person(number, image, x, y, size, **changes):
    entry = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 3,
        "keypoints": keypoints(x, y, size),
        "bbox": [x, y, size, size],
        "area": float(size * size),
    }
    return entry | changes


def result(image, x, y, size, score):
    points = np.array(keypoints(x, y, size), float).reshape(3, 3)
    points[:, 2] = score
    return {"image_id": image, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}


@pytest.fixture
def small(tmp_path):
    """Five images: 1 all found, 2 one of two missed, 3 nobody but a result, 4 a crowd with a result, 5 nothing."""
    folder = tmp_path / "Fotos ü 人"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        picture = rng.integers(0, 256, (100, 150, 3), np.uint8)
        (folder / f"{number} ü.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    tree = {
        "images": [{"id": n, "file_name": f"{n} ü.png", "width": 150, "height": 100} for n in range(1, 6)],
        "annotations": [
            person(11, 1, 10, 10, 60),
            person(12, 2, 10, 10, 40),
            person(13, 2, 70, 20, 50),
            person(14, 4, 20, 20, 60, iscrowd=1, num_keypoints=0, keypoints=[0] * 9),
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    annotations = folder / "truth.json"
    annotations.write_text(json.dumps(tree))
    results = [
        result(1, 10, 10, 60, 0.9),
        result(2, 12, 10, 40, 0.8),
        result(2, 100, 10, 20, 0.05),
        result(3, 30, 30, 30, 0.7),
        result(4, 25, 25, 50, 0.6),
    ]
    truth = load_ground_truth(annotations, TRIANGLE)
    return SimpleNamespace(
        folder=folder, annotations=annotations, results=results, truth=truth, skeleton=TRIANGLE, tree=tree
    )
