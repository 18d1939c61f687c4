"""Annotated persons on no pictures, and results made from them: `people` in the tests of this folder."""

import json

import numpy as np

SIDE = 200.0


def annotation(number, image_id, rng, *, labelled=17, count=17, area=5000.0, iscrowd=0):
    """A person with `count` keypoints, the first `labelled` of them annotated, anywhere in a box of 200 px."""
    points = np.concatenate([rng.uniform(10, 190, (count, 2)).round(1), np.full((count, 1), 2.0)], axis=1)
    points[labelled:] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": iscrowd,
        "num_keypoints": labelled,
        "keypoints": points.ravel().tolist(),
        "area": area,
        "bbox": [0.0, 0.0, SIDE, SIDE],
    }


def write_truth(path, annotations, images=4):
    """A COCO file; `images` is their number, or their entries."""
    entries = [{"id": n, "file_name": f"{n}.png"} for n in range(1, images + 1)] if isinstance(images, int) else images
    tree = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(tree))
    return path


def results_from(path, *, shift=0.0, score=None, noise=0.0):
    """The labelled persons of an annotation file as results, moved to the right, and by `noise` px anywhere."""
    rng = np.random.default_rng(1)
    results = []
    for entry in json.loads(path.read_text())["annotations"]:
        if entry["num_keypoints"]:
            points = np.array(entry["keypoints"], dtype=np.float64).reshape(-1, 3)
            points[:, 0] += shift
            points[:, :2] += rng.normal(0, 1, points[:, :2].shape) * noise
            points[:, 2] = 0.9
            value = float(rng.uniform(0.5, 1)) if score is None else score
            result = {"image_id": entry["image_id"], "category_id": 1, "score": value}
            results.append(result | {"keypoints": points.ravel().tolist()})
    return results
