"""The torch network against every stage recorded from the published implementation, on its seeded tiny weights."""

import numpy as np
import pytest
import torch

from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, ModelSpec
from posesdk_training.models.adaptation import (
    global_windows,
    keypoints_from_peaks,
    local_context,
    refine,
    reweighing,
    top_two,
    upsample,
)
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import DenseMaps, LogoCap, flip_average, initial_poses, select_centers

DEFAULT_WINDOW = {"global_size": 97, "reweigh_sigma": 16.0}
SMALL_WINDOW = {"global_size": 17, "reweigh_sigma": 2.5}
CASES = {"tiny_A_default_decoder": DEFAULT_WINDOW, "tiny_B_small_global": SMALL_WINDOW}


def tiny_model(weights: dict[str, np.ndarray], window: dict[str, float]) -> LogoCap:
    spec = ModelSpec(
        name="tiny",
        frame="published",
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        decode=DecodeSpec(flip_test=True),
        adaptation=AdaptationSpec(message_channels=(16, 12, 8), affine_pairs=5, **window),
    )
    model = build_model(spec).eval()
    state = {k: torch.from_numpy(v) for k, v in weights.items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    return model


def assert_near(found: torch.Tensor, expected: np.ndarray, *, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(found.detach(), torch.from_numpy(expected), atol=atol, rtol=rtol)


@pytest.fixture(scope="module")
def weights(reference):
    return reference("tiny_weights_fp16")


@pytest.fixture(scope="module", params=CASES)
def case(request, reference, weights):
    return tiny_model(weights, CASES[request.param]), reference(request.param)


@pytest.fixture(scope="module")
def a(reference, weights):
    return tiny_model(weights, DEFAULT_WINDOW), reference("tiny_A_default_decoder")


@pytest.fixture(scope="module")
def b(reference, weights):
    return tiny_model(weights, SMALL_WINDOW), reference("tiny_B_small_global")


def recorded_poses(arrays):
    poses = torch.from_numpy(arrays["local_kem"][:, 5, 5])
    return poses, torch.zeros(len(poses), dtype=torch.int64)


def assert_near_in_range(found: torch.Tensor, expected: np.ndarray) -> None:
    """Equal but for the convolution kernels of another CPU.

    The recorded maps lie up to 4.3e-6 of their range from the same network run in float64, so an absolute bound of
    1e-5 cannot hold for values up to 29 on every machine.
    """
    assert_near(found, expected, atol=1e-5 * float(np.abs(expected).max()))


def test_dense_maps(a):
    model, arrays = a
    images = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        assert_near_in_range(model.backbone(images), arrays["features"])
        maps = model(torch.cat((images, images.flip(3))))
    assert_near_in_range(maps.heatmaps, arrays["heatmaps_raw"])
    assert_near_in_range(maps.offsets, arrays["offsets_raw"])
    assert_near_in_range(maps.embedding[:1], arrays["embedding"])


def test_flip_average(a):
    model, arrays = a
    heatmaps, offsets = torch.from_numpy(arrays["heatmaps_raw"]), torch.from_numpy(arrays["offsets_raw"])
    embedding = torch.from_numpy(arrays["embedding"])
    plain, mirrored = (DenseMaps(heatmaps[i : i + 1], offsets[i : i + 1], embedding) for i in (0, 1))
    averaged = flip_average(plain, mirrored, model.spec.skeleton)
    assert_near(averaged.heatmaps, arrays["heatmaps"], atol=1e-6)
    assert_near(averaged.offsets, arrays["offsets"], atol=1e-6)


def test_upsampled_maps(case):
    _, arrays = case
    upsampled = upsample(torch.from_numpy(arrays["heatmaps"]))
    assert_near(upsampled[:, 17], arrays["heatmaps_hr_center"], atol=1e-5)
    assert_near(upsampled[:, 0], arrays["heatmaps_hr_nose"], atol=1e-5)


def test_centers_and_initial_poses(case):
    _, arrays = case
    mask = arrays["center_mask"]
    centers = select_centers(torch.from_numpy(arrays["heatmaps_hr_center"]), 30)
    assert_near(centers[0][mask], arrays["centers_topk"][mask], atol=1e-6)
    assert (centers[0, :, 2] >= 0.01).tolist() == mask.tolist()
    poses = initial_poses(centers[:, mask], torch.from_numpy(arrays["offsets"]), "published")
    assert_near(poses[0], arrays["local_kem"][:, 5, 5], atol=1e-4)


def test_expansion_mesh(case):
    model, arrays = case
    poses, _ = recorded_poses(arrays)
    assert_near(model.expansion_mesh(poses), arrays["local_kem"], atol=1e-4)


def test_local_context_and_attraction_maps(a):
    model, arrays = a
    mesh, (_, image_index) = torch.from_numpy(arrays["local_kem"]), recorded_poses(arrays)
    embedding = torch.from_numpy(arrays["embedding"])
    assert_near(local_context(embedding, mesh, image_index, "published"), arrays["latent_code"], atol=1e-6)
    with torch.no_grad():
        assert_near(model.joints_mlp(torch.from_numpy(arrays["latent_code"])), arrays["kam_raw"], atol=1e-5, rtol=1e-5)


def test_gaussian_prior(case):
    model, arrays = case
    assert_near(reweighing(model.spec.adaptation, torch.device("cpu")), arrays["gauss"][0, 0], atol=1e-6)


def test_windows_and_refined_maps_of_every_person(b):
    model, arrays = b
    poses, image_index = recorded_poses(arrays)
    upsampled = upsample(torch.from_numpy(arrays["heatmaps"]))
    windows = global_windows(upsampled, poses, image_index, size=17, frame="published")
    assert_near(windows, arrays["global_hm_sampled"], atol=1e-6)
    reweighed = model.reweighed_windows(upsampled, poses, image_index)
    assert_near(reweighed, arrays["global_hm_reweighed"], atol=1e-6)
    assert_near(refine(reweighed, torch.from_numpy(arrays["kam_raw"]).clamp(0, 1)), arrays["refined_hm"], atol=1e-6)


def test_refined_maps_of_the_large_window(a):
    model, arrays = a
    poses, image_index = recorded_poses(arrays)
    windows = model.reweighed_windows(upsample(torch.from_numpy(arrays["heatmaps"])), poses, image_index)
    refined = refine(windows, torch.from_numpy(arrays["kam_raw"]).clamp(0, 1))
    assert_near(refined[0, [0, 5, 9, 11]], arrays["refined_hm_p0_j0_5_9_11"], atol=1e-6)


def test_peaks_and_keypoints(case):
    model, arrays = case
    poses, image_index = recorded_poses(arrays)
    windows = model.reweighed_windows(upsample(torch.from_numpy(arrays["heatmaps"])), poses, image_index)
    values, indices = top_two(refine(windows, torch.from_numpy(arrays["kam_raw"]).clamp(0, 1)))
    assert torch.equal(indices, torch.from_numpy(arrays["top2_idx"]))
    assert_near(values, arrays["top2_value"], atol=1e-6)
    keypoints = keypoints_from_peaks(values, indices, poses, model.spec.adaptation.global_size)
    assert_near(keypoints[..., :2], arrays["refined_pose_rawscore"][..., :2], atol=1e-4)
    assert_near(keypoints[..., 2], arrays["refined_pose_rawscore"][..., 2], atol=1e-6)


def test_decode_of_recorded_maps(a):
    model, arrays = a
    maps = DenseMaps(*(torch.from_numpy(arrays[name]) for name in ("heatmaps", "offsets", "embedding")))
    found = model.decode(maps)
    assert_near(found.keypoints[..., :2], arrays["final_poses"][..., :2], atol=1e-4)
    assert_near(found.keypoints[..., 2], arrays["final_poses"][..., 2], atol=1e-6)
    assert_near(found.scores, arrays["final_scores"], atol=1e-6)


def test_whole_detection(case):
    model, arrays = case
    found = model.detect(torch.from_numpy(arrays["input"]))
    assert_near(found.attraction_maps, arrays["kam_raw"], atol=1e-4)
    assert_near(found.keypoints[..., :2], arrays["final_poses_all"][..., :2], atol=1e-4)
    assert_near(found.keypoints[..., 2], arrays["final_poses_all"][..., 2], atol=1e-5)
    assert_near(found.scores, arrays["scores_all"], atol=1e-5)
    assert (found.scores > 0).sum() == len(arrays["final_scores"])


def test_best_center_is_used_where_none_is_confident(reference, weights):
    arrays = reference("tiny_C_fallback")
    model = tiny_model(weights | {"final_layer_cls.bias": arrays["final_layer_cls_bias"]}, SMALL_WINDOW)
    found = model.detect(torch.from_numpy(arrays["input"]))
    assert_near(found.centers, arrays["centers_topk"][arrays["center_mask"]], atol=1e-5)
    assert_near(found.keypoints[..., :2], arrays["final_poses_all"][..., :2], atol=1e-4)
    assert_near(found.scores, arrays["scores_all"], atol=1e-6)


def test_dense_maps_in_training_mode(reference, weights):
    arrays = reference("tiny_train")
    model = tiny_model(weights, DEFAULT_WINDOW).train()
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.spec.input.mean, model.spec.input.std))
    maps = model((torch.from_numpy(arrays["images_u8_nchw_rgb"]) / 255 - mean) / std)
    assert_near_in_range(maps.heatmaps, arrays["pred/heatmaps"])
    assert_near_in_range(maps.offsets, arrays["pred/offsets"])


def test_decoder_output_of_the_training_batch(reference, weights):
    arrays = reference("tiny_train")
    offsets = torch.from_numpy(arrays["pred/offsets"])
    centers = select_centers(upsample(torch.from_numpy(arrays["pred/heatmaps"]))[:, 17], 30)
    expected = torch.from_numpy(arrays["A/dec/centers"])
    found = expected[..., 2] > 0  # below, the places are arbitrary
    torch.testing.assert_close(centers[found], expected[found], atol=1e-6, rtol=0)
    poses = initial_poses(expected, offsets, "published")
    assert_near(poses, arrays["A/dec/poses"], atol=1e-4)
