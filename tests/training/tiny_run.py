"""A tiny data set and training configuration, made by the tests themselves."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posesdk.skeleton import COCO_17
from posesdk.spec import AdaptationSpec, EdgeBackboneSpec, HeadSpec, InputSpec, ModelSpec
from posesdk_training.config import TrainConfig

TINY_SPEC = ModelSpec(
    name="tiny",
    input=InputSpec(resize="long", side=64, multiple=32),
    backbone=EdgeBackboneSpec(stem=8, channels=(8, 16, 16, 16), blocks=(1, 1, 1, 1), neck=16),
    heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4, activation="sigmoid", offset_scale=8.0),
    adaptation=AdaptationSpec(
        local_size=5, global_size=25, reweigh_sigma=4.0, message_channels=(16, 16, 8), affine_pairs=4
    ),
)


def stick_figure(rng: np.random.Generator, *, size: int) -> np.ndarray:
    """(17, 3) keypoints of an upright figure somewhere in a square of `size` px."""
    height = size * rng.uniform(0.5, 0.8)
    unit = np.array(
        [
            [0, 0.06], [0.02, 0.04], [-0.02, 0.04], [0.05, 0.05], [-0.05, 0.05], [0.12, 0.2], [-0.12, 0.2],
            [0.18, 0.35], [-0.18, 0.35], [0.2, 0.5], [-0.2, 0.5], [0.08, 0.52], [-0.08, 0.52], [0.09, 0.75],
            [-0.09, 0.75], [0.1, 0.97], [-0.1, 0.97],
        ]
    )  # fmt: skip
    origin = np.array([rng.uniform(0.3, 0.7) * size, (size - height) * rng.uniform(0.1, 0.9)])
    points = origin + unit * height
    return np.concatenate([points, np.full((17, 1), 2.0)], axis=1)


def write_tiny_set(folder: Path, *, images: int = 6, size: int = 96) -> tuple[Path, Path]:
    """Photos of one drawn figure each: the annotation file and the image folder."""
    rng = np.random.default_rng(7)
    tree: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}],
    }
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    for index in range(images):
        picture = rng.integers(0, 80, (size, size, 3), dtype=np.uint8)
        keypoints = stick_figure(rng, size=size)
        for a, b in COCO_17.edges:
            start, end = (tuple(int(v) for v in np.round(keypoints[i, :2])) for i in (a, b))
            cv2.line(picture, start, end, (90, 200, 250), 4)
        cv2.imwrite(str(pictures / f"{index}.png"), picture)
        low, high = keypoints[:, :2].min(0), keypoints[:, :2].max(0)
        box = [*low.tolist(), *(high - low).tolist()]
        tree["images"].append({"id": index, "file_name": f"{index}.png", "width": size, "height": size})
        tree["annotations"].append(
            {
                "id": index + 1,
                "image_id": index,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": box[2] * box[3],
                "num_keypoints": 17,
                "keypoints": keypoints.reshape(-1).tolist(),
            }
        )
    annotations = folder / "keypoints.json"
    annotations.write_text(json.dumps(tree))
    return annotations, pictures


def tiny_config(annotations: Path, images: Path, **changes: Any) -> TrainConfig:
    """A run of a few steps on such a set."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "model": TINY_SPEC.model_dump(),
        "data": {"workers": 0, "sets": [{"name": "tiny", "annotations": annotations, "images": images}]},
        "augment": {"crop": {"kind": "person", "person_size": (0.6, 0.95)}, "rotation": 10},
        "targets": {
            "keypoint_sigma_per_size": 0.045,
            "center_sigma_per_size": 0.08,
            "background_weight": 1.0,
            "offset_window": "gaussian",
            "offset_weight": "inverse_size",
            "min_center_area": 0,
        },
        "loss": {"heatmap": "focal", "offset_beta": 0.05, "offset_error": "relative", "offset_factor": 10.0},
        "optimizer": {"kind": "adamw", "learning_rate": 0.003, "schedule": "cosine", "clip_norm": 5.0},
        "phases": [{"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}}],
        "steps": 6,
        "batch_size": 2,
        "log_every": 1,
    }
    return TrainConfig.model_validate({**tree, **changes})
