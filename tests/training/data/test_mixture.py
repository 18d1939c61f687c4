"""COCO and CrowdPose in one run: what a set does not label is masked in its samples alone."""

import json

import numpy as np
import pytest

from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset

SHARED = [name for name in CROWDPOSE_14.keypoints if name in COCO_17.keypoints]


@pytest.fixture(scope="module")
def mixture(tiny_set, tiny_run, tmp_path_factory):
    """The tiny set as COCO and, with the points that CrowdPose has, as CrowdPose."""
    annotations, images = tiny_set
    tree = json.loads(annotations.read_text())
    tree["categories"][0]["keypoints"] = list(CROWDPOSE_14.keypoints)
    for entry in tree["images"]:
        entry["crowdIndex"] = 0.5
    for person in tree["annotations"]:
        points = dict(zip(COCO_17.keypoints, np.reshape(person["keypoints"], (17, 3)).tolist(), strict=True))
        person["keypoints"] = np.ravel([points.get(name, [0, 0, 0]) for name in CROWDPOSE_14.keypoints]).tolist()
        del person["area"]
    crowd = tmp_path_factory.mktemp("crowd") / "crowd.json"
    crowd.write_text(json.dumps(tree))

    def configure(shares, skeleton=COCO_17) -> TrainConfig:
        model = tiny_run.TINY_SPEC.model_dump() | {"skeleton": skeleton.model_dump()}
        del model["decode"]
        sets = [
            {"name": name, "annotations": path, "images": images}
            for name, path in (("coco", annotations), ("crowd", crowd))
        ]
        return tiny_run.tiny_config(
            annotations,
            images,
            model=model,
            data={"workers": 0, "sets": sets},
            phases=[{"mixture": shares, "sizes": {64: 1.0}}],
            batch_size=8,
        )

    return configure


def batch(config):
    dataset = KeypointDataset(config)
    keys = next(iter(StepSampler(config)))
    return collate([dataset[key] for key in keys])


def test_samples_of_crowdpose_teach_a_coco_model_nothing_about_faces(mixture):
    found = batch(mixture({"crowd": 1.0}))
    labelled = np.array([name in SHARED for name in COCO_17.keypoints])
    weights = found.heatmap_weights.numpy()
    assert weights.shape[1] == 18
    assert (weights[:, :17][:, ~labelled] == 0).all()
    assert (weights[:, 17] > 0).any()
    peaks = found.heatmaps.numpy().max(axis=(0, 2, 3))
    assert (peaks[:17] > 0).tolist() == labelled.tolist()
    offsets = found.offset_weights.numpy().reshape(8, 17, 2, 16, 16)
    assert ((offsets > 0).any(axis=(0, 2, 3, 4)) == labelled).all()
    assert all((keypoints[:, ~labelled, 2] == 0).all() for keypoints in found.keypoints)


def test_samples_of_coco_in_the_same_batch_keep_their_faces(mixture):
    found = batch(mixture({"coco": 0.5, "crowd": 0.5}))
    nose = found.heatmap_weights.numpy()[:, COCO_17.keypoints.index("nose")]
    learned = (nose > 0).any(axis=(1, 2))
    assert 0 < learned.sum() < len(learned)


def test_coco_teaches_a_crowdpose_model_all_but_head_and_neck(mixture):
    found = batch(mixture({"coco": 1.0}, CROWDPOSE_14))
    weights = found.heatmap_weights.numpy()
    masked = [
        name for name, row in zip(CROWDPOSE_14.keypoints, weights.swapaxes(0, 1), strict=False) if not (row > 0).any()
    ]
    assert masked == ["head", "neck"]
