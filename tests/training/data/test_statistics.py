"""Numbers of a data set, against what was put into its file."""

import json

from posesdk.skeleton import Skeleton
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.statistics import KeypointCount, describe
from posesdk_training.settings.data import DatasetConfig

PAIR = Skeleton(name="pair", keypoints=("left", "right"), flip_pairs=((0, 1),), sigmas=(0.1, 0.1))


def annotation(number, image, keypoints, side, *, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "bbox": [10, 10, side, side],
        "area": side * side,
        "iscrowd": crowd,
        "keypoints": keypoints,
    }


def test_counts_are_those_of_the_file(tmp_path):
    tree = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 300, "height": 300} for number in (1, 2, 3)],
        "annotations": [
            annotation(1, 1, [20, 20, 2, 30, 30, 1], 32),
            annotation(2, 1, [20, 20, 2, 0, 0, 0], 33),
            annotation(3, 2, [20, 20, 1, 30, 30, 1], 97),
            annotation(4, 2, [0, 0, 0, 0, 0, 0], 50),
            annotation(5, 2, [0, 0, 0, 0, 0, 0], 50, crowd=1),
        ],
        "categories": [{"id": 1, "name": "pair", "keypoints": ["left", "right"]}],
    }
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(tree))
    found = describe(load_keypoint_set(DatasetConfig(name="pairs", annotations=path, images=tmp_path), PAIR))
    assert (found.name, found.images, found.images_without_people) == ("pairs", 3, 1)
    assert (found.labelled, found.unlabelled, found.crowds) == (3, 1, 1)
    assert found.keypoints == (KeypointCount("left", 1, 2), KeypointCount("right", 2, 0))
    assert (found.sizes.small, found.sizes.medium, found.sizes.large) == (1, 1, 1)
    assert found.faults == ()
