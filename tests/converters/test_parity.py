from dataclasses import replace

import cv2
import numpy as np
import pytest

from posesdk.bundle import open_bundle
from posesdk.pipeline import Estimate
from posesdk_converters.verification import parity as parity_module
from posesdk_converters.verification.noise import add_noise
from posesdk_converters.verification.parity import Reference, pose_distances, random_images, verify_variants
from posesdk_runtimes.errors import GateError
from posesdk_training.checkpoint import load_model
from posesdk_training.torch_runtime import torch_pipeline


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(tiny_checkpoint)


@pytest.fixture(scope="module")
def image(tiny_picture):
    return cv2.imread(str(tiny_picture))


@pytest.fixture
def folder(converted_bundle, tmp_path):
    """The files of the bundle, and their paths by which a variant names them."""
    bundle = open_bundle(converted_bundle)
    for file in bundle.manifest.files:
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bundle.read(file.path))
    return tmp_path


def estimate(*poses):
    points = np.array(poses, np.float32).reshape(len(poses), 2, 2)
    return Estimate(points, np.full(points.shape[:2], 0.5, np.float32), np.full(len(poses), 0.5, np.float32), {})


def test_distance_is_to_the_nearest_pose_in_any_order():
    wanted = estimate([[0, 0], [10, 0]], [[100, 0], [110, 0]])
    found = estimate([[100, 3], [110, 0]], [[500, 500], [0, 500]], [[0, 0], [10, 4]])
    distances, scores = pose_distances(found, wanted)
    np.testing.assert_allclose(distances, [[0, 4], [3, 0]])
    np.testing.assert_allclose(scores, 0)


def test_poses_that_are_not_found_are_infinitely_far():
    distances, _ = pose_distances(estimate(), estimate([[0, 0], [10, 0]]))
    assert np.isinf(distances).all()
    assert pose_distances(estimate([[0, 0], [1, 1]]), estimate())[0].size == 0


def test_every_variant_on_every_backend_equals_torch(model, folder, converted_bundle, image):
    variants = open_bundle(converted_bundle).manifest.variants
    parities = verify_variants(model, folder, variants, image)
    assert [(parity.variant, parity.runtime) for parity in parities] == [
        ("cpu-fp32", "openvino"),
        ("portable-fp32", "onnxruntime"),
        ("portable-fp32", "openvino"),
    ]
    for parity in parities:
        assert parity.keypoints > 17
        assert parity.within >= 0.999
        assert parity.max_map <= 1e-4


def test_torch_behind_the_pipeline_equals_itself(model, image):
    parity = Reference(model, [image]).compare(torch_pipeline(model), "float", "torch")
    assert (parity.within, parity.max_px, parity.max_score, parity.max_map) == (1.0, 0.0, 0.0, 0.0)


def test_moved_offsets_are_seen_in_the_keypoints(model, image):
    reference = Reference(model, [image])
    pipeline = torch_pipeline(model, reference.spec)
    exact = pipeline.trunk.run

    class Moved:
        inputs, outputs = pipeline.trunk.inputs, pipeline.trunk.outputs

        def run(self, feeds):
            maps = exact(feeds)
            return {**maps, "offsets": maps["offsets"] + 0.5}

    object.__setattr__(pipeline, "trunk", Moved())
    parity = reference.compare(pipeline, "float", "torch")
    assert parity.within < 0.5
    assert parity.max_map == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("limit", "value", "said"), [("MAP_TOLERANCE", -1.0, "its maps differ"), ("FRACTION", 1.1, "are within 0.05 px")]
)
def test_variant_beyond_a_limit_is_refused(model, folder, converted_bundle, image, monkeypatch, limit, value, said):
    monkeypatch.setattr(parity_module, limit, value)
    monkeypatch.setattr(parity_module, "RANDOM_IMAGES", 0)
    variants = open_bundle(converted_bundle).manifest.variants
    with pytest.raises(GateError, match=f"variant cpu-fp32 on openvino.*{said}"):
        verify_variants(model, folder, variants, image)


def test_keypoints_between_equal_responses_are_undecided(model, image):
    flat = np.full_like(image, 90)
    parity = Reference(model, [flat]).compare(torch_pipeline(model), "float", "torch")
    assert parity.undecided + parity.keypoints == 17 * parity.poses


def test_trunk_runs_once_an_image_however_often_rounding_is_imitated(model, image, monkeypatch):
    runs = []
    trunk = torch_pipeline(model).trunk

    class Counted:
        inputs, outputs = trunk.inputs, trunk.outputs

        def run(self, feeds):
            runs.append(feeds["image"].shape)
            return trunk.run(feeds)

    monkeypatch.setattr(
        parity_module, "torch_pipeline", lambda *known: replace(torch_pipeline(*known), trunk=Counted())
    )
    reference = Reference(model, [image, image[:, ::-1].copy()])
    assert len(runs) == 2
    for picture, estimate in zip(reference.images, reference.estimates, strict=True):
        np.testing.assert_array_equal(estimate.keypoints, torch_pipeline(model, reference.spec).run(picture).keypoints)


def test_random_images_are_the_same_each_time(model):
    first, second = random_images(model.spec, 2), random_images(model.spec, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert max(first[0].shape[:2]) == model.spec.input.side


def test_noise_is_a_share_of_the_largest_magnitude(model, image):
    feeds = {"image": image[None, :64, :96].copy()}
    exact = torch_pipeline(model).trunk.run(feeds)["heatmaps"]
    noisy = add_noise(torch_pipeline(model), 1e-3, seed=1).trunk.run(feeds)["heatmaps"]
    assert (noisy - exact).std() == pytest.approx(1e-3 * np.abs(exact).max(), rel=0.1)
