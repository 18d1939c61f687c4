"""Data sets for resident batches: photos of soft patterns, with persons of every kind."""

import json

import cv2
import numpy as np
import pytest
import torch

from posesdk.spec import ModelSpec
from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import center_rules, labelled_channels
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.resident.batches import ResidentBatches, SetRules
from posesdk_training.data.resident.photos import folder_sources
from posesdk_training.data.resident.source import smallest_crop
from posesdk_training.data.resident.store import load_store

SIZES = ((150, 200), (97, 64), (320, 240), (224, 224))
TARGETS = {
    "keypoint_sigma_per_size": 0.045,
    "center_sigma_per_size": 0.08,
    "background_weight": 1.0,
    "offset_window": "gaussian",
    "offset_weight": "inverse_size",
    "center_keypoints": ["left_shoulder", "right_shoulder", "left_hip", "right_hip"],
    "center_from_visible": True,
    "min_center_area": 0,
}
"""Those of the shipped nano and small recipes."""


def annotation(rng, number, image_id, size, **changes):
    height, width = size
    extent = rng.uniform(0.3, 0.8, 2) * (width, height)
    low = rng.uniform(0, 1, 2) * ((width, height) - extent)
    points = np.concatenate([low + rng.uniform(0, 1, (17, 2)) * extent, rng.integers(0, 3, (17, 1))], axis=1)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "area": float(extent.prod() * 0.6),
        "bbox": [*low.tolist(), *extent.tolist()],
    } | changes


def write_set(folder, seed, sizes=SIZES):
    """Per photo three persons, one without keypoints (polygons) and one crowd with keypoints (run lengths)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tree = {"images": [], "annotations": [], "categories": []}
    for image_id, size in enumerate(sizes, 1):
        coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{image_id}.png"), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
        tree["images"].append({"id": image_id, "file_name": f"{image_id}.png", "width": size[1], "height": size[0]})
        for _ in range(3):
            tree["annotations"].append(annotation(rng, len(tree["annotations"]) + 1, image_id, size))
        x, y, w, h = 0.1 * size[1], 0.1 * size[0], 0.3 * size[1], 0.4 * size[0]
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        nobody = {"keypoints": [0] * 51, "num_keypoints": 0, "segmentation": [polygon], "bbox": [x, y, w, h]}
        tree["annotations"].append(annotation(rng, 100 + image_id, image_id, size, **nobody))
        flat = np.zeros((size[1], size[0]), np.uint8)
        flat[size[1] // 2 :, size[0] // 2 :] = 1
        edges = np.flatnonzero(np.diff(flat.ravel())) + 1
        counts = np.diff([0, *edges, flat.size]).tolist()
        crowd = {"iscrowd": 1, "segmentation": {"size": list(size), "counts": counts}}
        tree["annotations"].append(annotation(rng, 200 + image_id, image_id, size, **crowd))
    path = folder / "keypoints.json"
    path.write_text(json.dumps(tree))
    return {"name": folder.name, "annotations": path, "images": folder}


@pytest.fixture
def make_config(tmp_path):
    """A configuration on sets of the given names; `sets` maps a name to more of its entry."""

    def make(sets=None, **changes):
        sets = sets or {"one": {}}
        entries = [write_set(tmp_path / name, seed) | more for seed, (name, more) in enumerate(sets.items())]
        tree = {
            "name": "test",
            "model": ModelSpec(name="tiny"),
            "data": {"sets": entries, "resident": True},
            "augment": {"crop": {"kind": "person"}, "rotation": 15, "rotation_distribution": "normal"},
            "targets": TARGETS,
            "phases": [{"mixture": dict.fromkeys(sets, 1.0), "sizes": {128: 1.0}}],
            "steps": 40,
            "batch_size": 4,
        }
        return TrainConfig.model_validate(tree | changes)

    return make


@pytest.fixture
def open_batches():
    """Resident batches of a configuration's folders, on the CPU."""

    def make(config, **where):
        sets = [load_keypoint_set(entry, config.model.skeleton) for entry in config.data.sets]
        names = [entry.name for entry in config.data.sets]
        sources = [s for index, entry in enumerate(sets) for s in folder_sources(entry, index)]
        store = load_store(sources, names, smallest_crop=smallest_crop(config), device=torch.device("cpu"))
        centers = center_rules(config.model.skeleton) if config.model.centers == "dual" else None
        rules = tuple(
            SetRules(labelled_channels(entry.annotated, centers), entry.config.supervised_window) for entry in sets
        )
        return ResidentBatches(config, store, rules, **where)

    return make
