"""The decoder on the device and its differentiable twin in torch give the same poses on the same maps."""

import numpy as np
import pytest

from posesdk.adapt import adapt_poses, uses_attraction
from posesdk.context import local_context
from posesdk.decode import average_flip, decode_center_offset
from posesdk.responses import convolve_windows
from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, HRNetSpec, ModelSpec
from posesdk.windows import reweighing_window, sample_windows

torch = pytest.importorskip("torch", reason="the twin is written in torch")

from posesdk_training.models.build import build_model  # noqa: E402
from posesdk_training.models.logocap import DenseMaps  # noqa: E402

HEIGHT, WIDTH = 24, 40
TIE = 2e-6
"""Peaks closer than this are one within float32 noise: either place is right."""


def _tiny(frame, **adaptation):
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny",
        frame=frame,
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=3),
        decode=DecodeSpec(max_people=9, center_threshold=0.5),
        adaptation=AdaptationSpec(
            **{"local_size": 7, "global_size": 31, "message_channels": (8, 8, 8), "affine_pairs": 2, **adaptation}
        ),
    )
    model = build_model(spec).eval()
    with torch.no_grad():
        model.joints_mlp[-1].weight.normal_()
        model.joints_mlp[-1].bias.fill_(0.3)
    return model


def _maps(seed):
    """Random maps whose centers keep off the border, where equal pixels make the choice of a center a tie."""
    rng = np.random.default_rng(seed)
    heatmaps = rng.normal(size=(18, HEIGHT, WIDTH)).astype(np.float32)
    heatmaps[17] *= np.pad(np.ones((HEIGHT - 2, WIDTH - 2), np.float32), 1)
    offsets = rng.normal(size=(34, HEIGHT, WIDTH)).astype(np.float32) * 12  # windows over and beyond every border
    return heatmaps, offsets, rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)


def _decode_on_the_device(model, heatmaps, offsets, embedding):
    """Initial poses, attraction maps (or None), keypoints and scores by numpy; the `adapt` graph alone is torch."""
    spec = model.spec
    initial = decode_center_offset(heatmaps, offsets, spec)
    with torch.no_grad():
        attraction = model.joints_mlp(torch.from_numpy(local_context(initial.keypoints, embedding, spec))).numpy()
    keypoints, scores = adapt_poses(initial, heatmaps, attraction if uses_attraction(spec) else None, spec)
    return initial, attraction, keypoints, scores


def _clear(model, initial, heatmaps, attraction):
    """(N, K) whether a keypoint has one best place."""
    spec, clamped = model.spec, attraction.clip(0, 1)
    if spec.adaptation.level == "none":
        return np.ones(initial.keypoints.shape[:2], bool)
    answered = clamped.any(axis=(2, 3))
    if spec.adaptation.level == "partial":
        top = np.sort(clamped.reshape(*clamped.shape[:2], -1), axis=-1)
        return answered & (top[..., -1] - top[..., -2] > TIE)
    windows = sample_windows(initial.keypoints, heatmaps, spec.adaptation.global_size, spec.frame)
    windows = windows * reweighing_window(spec.adaptation)
    if uses_attraction(spec):
        windows = convolve_windows(windows, clamped)
    else:
        answered = np.ones_like(answered)
    top = np.sort(windows.reshape(*windows.shape[:2], -1), axis=-1)[..., -3:]
    return answered & (np.diff(top).min(axis=-1) > TIE)


@pytest.mark.parametrize(
    "adaptation",
    [
        {},
        {"level": "partial"},
        {"level": "none"},
        {"prior": "kem"},
        {"prior": "kam"},
        {"reweigh_sigma": None},
        {"local_size": 11, "global_size": 97},
        {"message_channels": (), "local_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("frame", ["published", "consistent"])
@pytest.mark.parametrize("seed", [0, 1])
def test_twins_give_the_same_poses(frame, adaptation, seed):
    model = _tiny(frame, **adaptation)
    heatmaps, offsets, embedding = _maps(seed)
    initial, attraction, keypoints, scores = _decode_on_the_device(model, heatmaps, offsets, embedding)
    found = model.decode(
        DenseMaps(
            torch.from_numpy(heatmaps)[None],
            torch.from_numpy(offsets)[None],
            torch.from_numpy(embedding.transpose(2, 0, 1).copy())[None],
        )
    )
    assert len(initial) == 9
    np.testing.assert_array_equal(initial.centers, found.centers[:, :2])
    np.testing.assert_allclose(initial.keypoints, found.initial_poses, rtol=0, atol=1e-4)
    np.testing.assert_allclose(attraction, found.attraction_maps, rtol=0, atol=1e-4)
    clear = _clear(model, initial, heatmaps, attraction)
    assert clear.mean() > 0.3
    np.testing.assert_allclose(keypoints[clear], found.keypoints[..., :2].numpy()[clear], rtol=0, atol=1e-4)
    np.testing.assert_allclose(scores, found.keypoints[..., 2], rtol=0, atol=1e-5)


def test_fallback_center_gives_the_published_pose(reference):
    """Network in torch, decoder on the device, from the published input to the published pose."""
    arrays, weights = reference("tiny_C_fallback"), reference("tiny_weights_fp16")
    spec = ModelSpec(
        name="tiny",
        frame="published",
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        adaptation=AdaptationSpec(global_size=17, reweigh_sigma=2.5, message_channels=(16, 12, 8), affine_pairs=5),
    )
    model = build_model(spec).eval()
    state = {**weights, "final_layer_cls.bias": arrays["final_layer_cls_bias"]}
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, strict=True)
    images = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        maps = model(torch.cat([images, images.flip(3)]))
    heatmaps, offsets = average_flip(maps.heatmaps.numpy(), maps.offsets.numpy(), spec.skeleton)
    embedding = maps.embedding[0].permute(1, 2, 0).numpy()
    initial, _, keypoints, scores = _decode_on_the_device(model, heatmaps, offsets, embedding)
    assert initial.centers.tolist() == [[50, 45]]
    np.testing.assert_allclose(keypoints, arrays["final_poses_all"][..., :2], rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores, arrays["final_poses_all"][..., 2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.mean(axis=1), arrays["scores_all"], rtol=0, atol=1e-6)
