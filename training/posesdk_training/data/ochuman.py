"""OCHuman's own annotation file (ochuman.json; Zhang et al., Pose2Seg, CVPR 2019) as a COCO tree."""

from typing import Any

__all__ = ["coco_tree", "is_published_ochuman"]

Tree = dict[str, Any]

VISIBILITY = {0: 0, 1: 2, 2: 2, 3: 1}
"""Missing, visible, hidden by the own body, hidden by others -> COCO's v, as in the published COCO files."""


def is_published_ochuman(tree: Tree) -> bool:
    """Whether a file is ochuman.json: images with annotations inside, and the names of the keypoints beside them."""
    return "keypoint_names" in tree and "annotations" not in tree


def coco_tree(tree: Tree) -> Tree:
    """All persons of ochuman.json, those without keypoints or mask included; `area` is that of the box, as published.

    The keypoints are the file's 19, by name. Raises KeyError, TypeError or ValueError for a file that is malformed.
    """
    images: list[Tree] = []
    annotations: list[Tree] = []
    for number, entry in enumerate(tree["images"], start=1):
        image_id = int(entry.get("image_id", number))
        images.append({key: value for key, value in entry.items() if key != "annotations"} | {"id": image_id})
        for person in entry["annotations"]:
            annotations.append(_annotation(person, len(annotations) + 1, image_id))
    category = {"id": 1, "name": "person", "keypoints": list(tree["keypoint_names"])}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _annotation(person: Tree, number: int, image_id: int) -> Tree:
    left, top, right, bottom = person["bbox"]
    points = list(person.get("keypoints") or [])
    points[2::3] = [VISIBILITY[int(code)] for code in points[2::3]]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "keypoints": points,
        "num_keypoints": sum(code > 0 for code in points[2::3]),
        "segmentation": (person.get("segms") or {}).get("outer") or [],
    }
