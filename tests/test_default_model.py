"""The models that ship: what the default one finds, and that the wheel's files belong together."""

import numpy as np
import pytest

from posesdk import Detector
from posesdk.bundle import default_bundle_path, models_folder, open_bundle
from posesdk.oks import oks
from posesdk.skeleton import COCO_17
from posesdk_converters.rendering.render import render_people
from posesdk_training.checkpoint import load_checkpoint

ACCURACY_BAR = 0.12
"""AP on coco_eval-300 under which no model is shipped."""


@pytest.fixture(scope="module")
def bundle():
    return open_bundle(default_bundle_path())


def test_default_model_finds_rendered_people_where_they_are():
    rendering = render_people(seed=1, people=3, samples=1)
    with Detector(threads=1) as detector:
        poses = detector(rendering.image)
    visible = np.full((*rendering.keypoints.shape[:2], 1), 2.0)
    truth = np.concatenate([rendering.keypoints, visible], axis=-1)
    extent = np.ptp(rendering.keypoints, axis=1)
    similarity = oks(poses.keypoints, truth, 0.5 * extent.prod(axis=-1), COCO_17.sigma_array)
    assert (similarity.max(axis=0) > 0.4).sum() >= 2


def test_default_model_finds_the_astronaut_of_scikit_image():
    data = pytest.importorskip("skimage.data", reason="the photo ships with scikit-image")
    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    with Detector(threads=1) as detector:
        poses = detector(image)
    assert len(poses) >= 1
    x, y, _ = poses[0].keypoint("nose")
    assert 170 < x < 270
    assert 60 < y < 180


def test_default_model_finds_nobody_on_a_blank_picture():
    with Detector(threads=1) as detector:
        assert len(detector(np.full((240, 320, 3), 127, np.uint8))) == 0


def test_manifest_states_accuracy_data_and_licence(bundle):
    (entry,) = bundle.manifest.accuracy
    assert entry.dataset == "coco_eval-300"
    assert entry.metrics["AP"] >= ACCURACY_BAR
    assert bundle.manifest.licence.weights == "Apache-2.0"
    assert len(bundle.manifest.licence.training_data) == 6


@pytest.mark.parametrize("path", sorted(models_folder().glob("*.posebundle")), ids=lambda path: path.stem)
def test_checkpoint_beside_each_bundle_is_the_one_it_was_made_from(path):
    assert load_checkpoint(path.with_suffix(".safetensors")).spec == open_bundle(path).spec
