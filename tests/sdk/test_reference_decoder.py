"""The device-side decoder against every recorded stage.

`published` are outputs of the published LOGO-CAP implementation on seeded tiny weights, which lie beside the
repository; `own` are those of our torch network (tests/vectors), in both frames. Bounds: the design's tolerances.
"""

from pathlib import Path

import numpy as np
import pytest

from posesdk.adapt import adapt_poses
from posesdk.context import expansion_axes, local_context
from posesdk.decode import InitialPoses, average_flip, decode_center_offset, suppress_poses, upsample
from posesdk.preprocess import make_letterbox
from posesdk.responses import convolve_windows, find_peaks
from posesdk.spec import AdaptationSpec, DecodeSpec, InputSpec, ModelSpec
from posesdk.windows import reweighing_window, sample_windows

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
WINDOWS = {
    "tiny_A_default_decoder": {"global_size": 97, "reweigh_sigma": 16.0},
    "tiny_B_small_global": {"global_size": 17, "reweigh_sigma": 2.5},
}
SHOWN_KEYPOINTS = [0, 5, 9, 11]


def _published_spec(**adaptation):
    return ModelSpec(name="tiny", frame="published", input=InputSpec(side=64), adaptation=AdaptationSpec(**adaptation))


@pytest.fixture(params=WINDOWS)
def published(request, reference):
    return _published_spec(**WINDOWS[request.param]), reference(request.param)


def _own(frame):
    with np.load(VECTORS / f"decode_{frame}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    spec = ModelSpec.model_validate_json(str(arrays.pop("spec")))
    assert spec.frame == frame
    return spec, arrays


@pytest.fixture(params=["published", "consistent"])
def own(request):
    return _own(request.param)


@pytest.fixture(params=["tiny_A_default_decoder", "tiny_B_small_global", "own published", "own consistent"])
def case(request, reference):
    """Specification and stages, those of our own vectors under the published names."""
    if request.param in WINDOWS:
        arrays = reference(request.param)
        return _published_spec(**WINDOWS[request.param]), {
            **arrays,
            "centers": arrays["centers_topk"][arrays["center_mask"]],
            "initial_poses": arrays["local_kem"][:, 5, 5],
        }
    return _own(request.param.removeprefix("own "))


def _assert_near(found, expected, atol):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def _recorded(arrays):
    centers = arrays["centers"]
    return InitialPoses(arrays["initial_poses"], centers[:, 2], centers[:, :2], np.zeros(len(centers), np.intp))


def test_flip_average(reference):
    arrays = reference("tiny_A_default_decoder")
    heatmaps, offsets = average_flip(arrays["heatmaps_raw"], arrays["offsets_raw"], _published_spec().skeleton)
    _assert_near(heatmaps, arrays["heatmaps"][0], 1e-6)
    _assert_near(offsets, arrays["offsets"][0], 1e-6)


def test_upsampled_maps(published):
    _, arrays = published
    full = upsample(arrays["heatmaps"][0])
    _assert_near(full[17], arrays["heatmaps_hr_center"][0], 1e-5)
    _assert_near(full[0], arrays["heatmaps_hr_nose"][0], 1e-5)


def test_centers_and_initial_poses(case):
    spec, arrays = case
    found = decode_center_offset(arrays["heatmaps"][0], arrays["offsets"][0], spec)
    np.testing.assert_array_equal(found.centers, arrays["centers"][:, :2])
    _assert_near(found.scores, arrays["centers"][:, 2], 1e-6)
    _assert_near(found.keypoints, arrays["initial_poses"], 1e-4)


def test_best_center_below_the_threshold(reference):
    arrays, bias = reference("tiny_C_fallback"), reference("tiny_weights_fp16")["final_layer_cls.bias"]
    same_net = reference("tiny_B_small_global")
    # The last layer is linear, so another bias of it moves the maps by the difference.
    moved = (arrays["final_layer_cls_bias"] - bias.astype(np.float32))[:, None, None]
    heatmaps = same_net["heatmaps"][0] + moved
    found = decode_center_offset(heatmaps, same_net["offsets"][0], _published_spec())
    expected = arrays["centers_topk"][arrays["center_mask"]]
    assert len(found) == len(expected) == 1
    np.testing.assert_array_equal(found.centers, expected[:, :2])
    _assert_near(found.scores, expected[:, 2], 1e-6)
    assert found.scores[0] < 0.01


def test_expansion(case):
    spec, arrays = case
    xs, ys = expansion_axes(arrays["initial_poses"], spec)
    mesh = arrays["local_kem"].transpose(0, 3, 1, 2, 4)  # (N, K, y, x, 2)
    _assert_near(np.broadcast_to(xs[:, :, None, :], mesh.shape[:-1]), mesh[..., 0], 1e-4)
    _assert_near(np.broadcast_to(ys[:, :, :, None], mesh.shape[:-1]), mesh[..., 1], 1e-4)


@pytest.mark.parametrize("case", ["tiny_A_default_decoder", "own published", "own consistent"], indirect=True)
def test_local_context(case):
    spec, arrays = case
    context = local_context(arrays["initial_poses"], arrays["embedding"][0].transpose(1, 2, 0), spec)
    _assert_near(context, arrays["latent_code"], 1e-6)


def test_gaussian(published):
    spec, arrays = published
    _assert_near(reweighing_window(spec.adaptation), arrays["gauss"][0, 0], 1e-6)
    np.testing.assert_array_equal(reweighing_window(spec.adaptation) == 0, arrays["gauss"][0, 0] == 0)


def test_windows_and_refined_maps(case):
    spec, arrays = case
    windows = sample_windows(arrays["initial_poses"], arrays["heatmaps"][0], spec.adaptation.global_size, spec.frame)
    reweighed = windows * reweighing_window(spec.adaptation)
    refined = convolve_windows(reweighed, arrays["kam_raw"].clip(0, 1))
    stages = {"global_hm_sampled": windows, "global_hm_reweighed": reweighed, "refined_hm": refined}
    compared = 0
    for name, values in stages.items():
        if name in arrays:
            _assert_near(values, arrays[name], 1e-6)
            compared += 1
        elif f"{name}_p0_j0_5_9_11" in arrays:
            _assert_near(values[0, SHOWN_KEYPOINTS], arrays[f"{name}_p0_j0_5_9_11"], 1e-6)
            compared += 1
    assert compared >= 1
    indices, values = find_peaks(refined)
    np.testing.assert_array_equal(indices, arrays["top2_idx"])
    _assert_near(values, arrays["top2_value"], 1e-6)


def test_final_poses_and_scores(case):
    spec, arrays = case
    keypoints, scores = adapt_poses(_recorded(arrays), arrays["heatmaps"][0], arrays["kam_raw"], spec)
    _assert_near(keypoints, arrays["final_poses_all"][..., :2], 1e-4)
    _assert_near(scores, arrays["final_poses_all"][..., 2], 1e-6)
    _assert_near(scores.mean(axis=1), arrays["scores_all"], 1e-6)


def test_poses_of_the_image(published):
    """From the maps to the poses after suppression, in original px and keep order."""
    spec, arrays = published
    initial = decode_center_offset(arrays["heatmaps"][0], arrays["offsets"][0], spec)
    keypoints, scores = adapt_poses(initial, arrays["heatmaps"][0], arrays["kam_raw"], spec)
    letterbox = make_letterbox(arrays["image_bgr_u8"].shape[:2], spec.input, spec.frame)
    assert letterbox.net_size == arrays["input"].shape[2:]
    points, totals = letterbox.to_image(keypoints), scores.mean(axis=1)
    kept = suppress_poses(points, totals, DecodeSpec())
    _assert_near(points[kept], arrays["image_poses_after_nms"][..., :2], 1e-4)
    _assert_near(scores[kept], arrays["image_poses_after_nms"][..., 2], 1e-6)
    _assert_near(totals[kept], arrays["image_scores_after_nms"], 1e-6)


@pytest.mark.parametrize("variant", ["partial", "none", "kem", "kam"])
def test_levels_and_priors(own, variant):
    spec, arrays = own
    field = "prior" if variant.startswith("k") else "level"
    adaptation = spec.adaptation.model_copy(update={field: variant})
    attraction, expected = arrays["kam_raw"], arrays[f"final_poses_all_{variant}"]
    keypoints, scores = adapt_poses(
        _recorded(arrays), arrays["heatmaps"][0], attraction, spec.model_copy(update={"adaptation": adaptation})
    )
    _assert_near(scores, expected[..., 2], 1e-6)
    clear = arrays.get(f"clear_{variant}", np.ones(scores.shape, bool))
    if variant == "partial":  # several points at or above 1, or none above 0, are equally good
        clear = (attraction > 0).any((2, 3)) & ((attraction >= 1).sum((2, 3)) <= 1)
    assert clear.mean() > 0.3
    _assert_near(keypoints[clear], expected[clear][..., :2], 1e-4)
