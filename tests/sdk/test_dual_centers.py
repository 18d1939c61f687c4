"""Persons out of the poses of several centers, by what the pose networks say. Oracle 11 of the design."""

import math

import numpy as np
import pytest

from posesdk.decode import ImageMaps, InitialPoses, upsample
from posesdk.dual_centers import DualCenters, level_channels, pose_context, refine_poses
from posesdk.methods import method_of
from posesdk.skeleton import Skeleton
from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HRNetSpec, ModelSpec, PoseNetsSpec

THREE = Skeleton(name="three", keypoints=("top", "left", "right"), flip_pairs=((1, 2),), sigmas=(0.03, 0.05, 0.05))
CHANNELS = (2, 3, 1, 2)
ALL_OFF = {"similarity": False, "confidence": False, "refinement": False}
SHAPE = np.array([[0, 0], [-10, 40], [10, 40]], np.float32)
"""A person of 20 x 40 net px, of scale sqrt(800)."""


def _spec(people=30, **nets):
    backbone = HRNetSpec(channels=CHANNELS)
    nets = PoseNetsSpec(**{"patch": 3, "embedding": 2, **nets})
    decode = DecodeSpec(max_people=people)
    return ModelSpec(
        name="tiny", method="dac", centers="dual", skeleton=THREE, backbone=backbone, pose_nets=nets, decode=decode
    )


def _random_maps(seed, height=16, width=24):
    rng = np.random.default_rng(seed)
    maps = {
        f"level{r}": rng.normal(size=(height >> r, width >> r, depth)).astype(np.float32)
        for r, depth in enumerate(CHANNELS)
    }
    return maps | {"heatmaps": rng.normal(size=(5, height, width)).astype(np.float32)}


def _read(image, x, y):
    """One bilinear sample of (h, w, ...) at a place in cells, 0 outside."""
    height, width = image.shape[:2]
    total = np.zeros(image.shape[2:])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_context_is_levels_patch_and_relative_place():
    maps, spec = _random_maps(0), _spec()
    poses = np.random.default_rng(1).uniform([-20, -20], [116, 84], (30, 3, 2)).astype(np.float32)
    context = pose_context(poses, maps, spec)
    assert context.shape == (30, *DualCenters().context_shape(spec)[1:]) == (30, 3, 8 + 9 + 2)
    for pose, seen in zip(poses, context, strict=True):
        sides = np.ptp(pose, axis=0)
        scale = max(4, math.sqrt(sides[0] * sides[1]))
        for k, (x, y) in enumerate(pose):
            strides = (4, 8, 16, 32)
            features = [
                _read(maps[f"level{r}"], (x - (s - 1) / 2) / s, (y - (s - 1) / 2) / s) for r, s in enumerate(strides)
            ]
            u, v = (x - 1.5) / 4, (y - 1.5) / 4
            patch = [_read(maps["heatmaps"][k], u + j, v + i) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            place = (pose[k] - pose.mean(axis=0)) / scale
            np.testing.assert_allclose(seen[k], np.concatenate([*features, patch, place]), rtol=0, atol=1e-5)


def test_levels_are_read_where_the_keypoint_is():
    ramps = {"heatmaps": np.zeros((5, 16, 24), np.float32)}
    for r, depth in enumerate(CHANNELS):
        y, x = np.mgrid[: 16 >> r, : 24 >> r] * (4 << r) + ((4 << r) - 1) / 2  # net px of each cell's middle
        ramps[f"level{r}"] = np.stack([x, y, x + y], axis=-1)[..., :depth].astype(np.float32)
    pose = np.array([[[20.25, 30.5], [41, 17], [70.75, 40]]], np.float32)
    context = pose_context(pose, ramps, _spec())[0]
    x, y = pose[0].T
    np.testing.assert_allclose(context[:, :8].T, [x, y, x, y, x + y, x, x, y], rtol=0, atol=1e-4)


@pytest.mark.parametrize("place", [-70.0, 1e9, -1e30])
def test_a_keypoint_far_outside_sees_nothing(place):
    maps = {name: np.ones_like(values) for name, values in _random_maps(2).items()}
    context = pose_context(np.full((1, 3, 2), place, np.float32), maps, _spec())
    assert not context[..., :-2].any()


def test_nobody_has_an_empty_context():
    spec = _spec()
    assert pose_context(np.zeros((0, 3, 2), np.float32), _random_maps(3), spec).shape == (0, 3, 19)


def test_channels_of_the_levels_are_those_of_the_backbone():
    assert level_channels(_spec()) == CHANNELS
    edge = ModelSpec(name="edge", backbone=EdgeBackboneSpec(neck=40))
    assert level_channels(edge) == (40, 40, 40, 40)


def _initial(keypoints, scores):
    scores, count = np.asarray(scores, np.float32), len(keypoints)
    return InitialPoses(
        np.asarray(keypoints, np.float32), scores, np.zeros((count, 2), np.float32), np.arange(count) % 2
    )


def _finish(spec, keypoints, scores, heatmaps=None, **outputs):
    heatmaps = np.ones((5, 32, 32), np.float32) if heatmaps is None else heatmaps
    maps = ImageMaps(heatmaps, np.zeros((12, *heatmaps.shape[1:]), np.float32), {})
    arrays = {name: np.asarray(values, np.float32) for name, values in outputs.items()}
    return DualCenters().finish(_initial(keypoints, scores), maps, arrays, spec)


TWO_PEOPLE = SHAPE + np.array([[20, 20], [21, 20], [80, 30], [80, 31]])[:, None]
"""The first two are one person's poses, the others another's."""
LOOKS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
STILL = np.zeros((4, 3, 2), np.float32)


def test_the_most_confident_pose_of_a_person_stands_for_it():
    poses, values, scores = _finish(
        _spec(), TWO_PEOPLE, [0.9, 0.8, 0.7, 0.6], similarity=LOOKS, confidence=[0.3, 0.5, 0.6, 0.2], residuals=STILL
    )
    np.testing.assert_allclose(scores, [0.6, 0.5])
    np.testing.assert_array_equal(poses, TWO_PEOPLE[[2, 1]])
    np.testing.assert_allclose(values, np.repeat(scores[:, None], 3, axis=1))


def test_poses_at_one_place_that_look_unlike_are_two_people():
    poses, _, _ = _finish(
        _spec(), TWO_PEOPLE[:2], [0.9, 0.8], similarity=LOOKS[1:3], confidence=[0.3, 0.5], residuals=STILL[:2]
    )
    assert len(poses) == 2


def test_a_threshold_of_1_keeps_everyone():
    twice = np.repeat(TWO_PEOPLE[:1], 4, axis=0)
    looks = np.repeat(np.float32([[0.70710678, 0.70710678]]) * np.float32(1.0000002), 4, axis=0)
    for threshold, people in ((1.0, 4), (0.99, 1)):
        spec = _spec(group_threshold=threshold)
        outputs = {"similarity": looks, "confidence": [0.4, 0.3, 0.2, 0.1], "residuals": STILL}
        assert len(_finish(spec, twice, np.ones(4), **outputs)[0]) == people


def test_residuals_of_0_leave_poses_and_those_of_1_move_them_by_a_tenth_of_their_scale():
    poses = np.stack([SHAPE, SHAPE * 3])
    np.testing.assert_array_equal(refine_poses(poses, np.zeros_like(poses)), poses)
    moved = refine_poses(poses, np.ones_like(poses) * [1, -2]) - poses
    for pose, scale in zip(moved, (math.sqrt(800), 3 * math.sqrt(800)), strict=True):
        np.testing.assert_allclose(pose, np.tile([0.1 * scale, -0.2 * scale], (3, 1)), rtol=1e-5)


def test_keypoint_score_is_the_persons_times_the_heatmap_at_the_refined_place():
    heatmaps = np.random.default_rng(7).normal(size=(5, 32, 32)).astype(np.float32)
    residuals = np.random.default_rng(8).normal(size=(1, 3, 2)).astype(np.float32)
    poses, values, scores = _finish(
        _spec(), TWO_PEOPLE[:1], [0.5], heatmaps, similarity=LOOKS[:1], confidence=[0.7], residuals=residuals
    )
    np.testing.assert_allclose(poses[0], TWO_PEOPLE[0] + 0.1 * math.sqrt(800) * residuals[0], rtol=0, atol=1e-4)
    for k, (x, y) in enumerate(poses[0]):
        at_place = _read(upsample(heatmaps)[k], x, y)
        assert values[0, k] == pytest.approx(scores[0] * max(at_place, 0), abs=1e-5)
    assert (values >= 0).all()


def test_merging_takes_the_mean_by_confidence():
    outputs = {"similarity": LOOKS, "confidence": [0.6, 0.2, 0.0, 0.0], "residuals": STILL + 0.5}
    poses, _, scores = _finish(_spec(select="merge"), TWO_PEOPLE, np.ones(4), **outputs)
    moved = [pose + 0.05 * math.sqrt(800) for pose in TWO_PEOPLE]
    np.testing.assert_allclose(poses[0], 0.75 * moved[0] + 0.25 * moved[1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(poses[1], 0.5 * moved[2] + 0.5 * moved[3], rtol=0, atol=1e-4)
    np.testing.assert_allclose(scores, [0.6, 0])


def test_score_may_be_confidence_times_center():
    spec = _spec(score="confidence_center")
    outputs = {"similarity": LOOKS, "confidence": [0.6, 0.5, 0.4, 0.3], "residuals": STILL}
    poses, _, scores = _finish(spec, TWO_PEOPLE, [0.1, 0.8, 0.5, 0.9], **outputs)
    np.testing.assert_allclose(scores, [0.4 * 0.5, 0.6 * 0.1])
    np.testing.assert_array_equal(poses, TWO_PEOPLE[[2, 0]])


def test_without_networks_near_poses_are_one_persons_and_score_the_mean_of_its_centers():
    poses, _, scores = _finish(_spec(**ALL_OFF), TWO_PEOPLE, [0.5, 0.3, 0.8, 0.9])
    np.testing.assert_allclose(scores, [0.85, 0.4])
    np.testing.assert_array_equal(poses, TWO_PEOPLE[[3, 0]])


@pytest.mark.parametrize(("shift", "people"), [(0.099, 1), (0.101, 2)])
def test_without_similarity_a_tenth_of_the_scale_is_the_limit(shift, people):
    pair = SHAPE + np.array([[0, 0], [shift * math.sqrt(800), 0]])[:, None]
    outputs = {"confidence": [0.5, 0.4], "residuals": STILL[:2]}
    assert len(_finish(_spec(similarity=False), pair, [0.5, 0.4], **outputs)[0]) == people


def test_without_refinement_poses_stay():
    outputs = {"similarity": LOOKS, "confidence": [0.6, 0.5, 0.4, 0.3], "residuals": STILL + 1}
    poses, _, _ = _finish(_spec(refinement=False), TWO_PEOPLE, np.ones(4), **outputs)
    np.testing.assert_array_equal(poses, TWO_PEOPLE[[0, 2]])


def test_no_more_than_max_people_are_found():
    outputs = {"similarity": LOOKS, "confidence": [0.3, 0.5, 0.6, 0.2], "residuals": STILL}
    poses, values, scores = _finish(_spec(people=1), TWO_PEOPLE, np.ones(4), **outputs)
    np.testing.assert_array_equal(poses, TWO_PEOPLE[2:3])
    assert (values.shape, scores.shape) == ((1, 3), (1,))


def test_no_candidates_give_nobody():
    poses, values, scores = _finish(_spec(), np.zeros((0, 3, 2)), np.zeros(0))
    assert (poses.shape, values.shape, scores.shape) == ((0, 3, 2), (0, 3), (0,))
    assert DualCenters().select(poses, scores, _spec()).shape == (0,)


def test_outputs_that_are_needed_and_missing_are_named():
    with pytest.raises(ValueError, match="expected residuals, similarity of 4 poses"):
        _finish(_spec(), TWO_PEOPLE, np.ones(4), confidence=np.ones(4))


def test_per_keypoint_sigmas_decide_what_is_one_persons():
    """The top is off by far more than its own sigma allows, and by less than the common one does."""
    pair = np.repeat(SHAPE[None], 2, axis=0)
    pair[1, 0] += [3, 0]
    outputs = {"similarity": LOOKS[:2], "confidence": [0.5, 0.4], "residuals": STILL[:2]}
    for per_keypoint, people in ((False, 1), (True, 2)):
        spec = _spec(dsp_per_keypoint_sigma=per_keypoint, group_threshold=0.9)
        assert len(_finish(spec, pair, [0.5, 0.4], **outputs)[0]) == people


def test_two_final_poses_at_one_place_are_both_kept_unless_asked_otherwise():
    poses = np.repeat(TWO_PEOPLE[:1], 3, axis=0) + np.float32([[[0, 0]], [[0.5, 0]], [[30, 0]]])
    scores = np.array([0.4, 0.6, 0.5], np.float32)
    assert PoseNetsSpec().final_oks_nms is None
    assert DualCenters().select(poses, scores, _spec()).tolist() == [0, 1, 2]
    assert DualCenters().select(poses, scores, _spec(final_oks_nms=0.9)).tolist() == [1, 2]


def test_manifests_without_the_new_settings_load_with_what_was_done_before():
    written = _spec().pose_nets.model_dump(exclude={"dsp_per_keypoint_sigma", "final_oks_nms"})
    assert PoseNetsSpec(**written) == _spec().pose_nets
    assert (_spec().pose_nets.dsp_per_keypoint_sigma, _spec().pose_nets.final_oks_nms) == (False, None)


def _one_center(method, seed):
    """Candidates around three people of one center each, maps, and a model without pose networks."""
    rng = np.random.default_rng(seed)
    skeleton = {"centers": "single", "skeleton": THREE, "backbone": HRNetSpec(channels=CHANNELS)}
    decode = DecodeSpec(nms_keypoints=1, nms_distance=0.2)
    adaptation, nets = AdaptationSpec(level="none"), PoseNetsSpec(**ALL_OFF)
    spec = ModelSpec(name="tiny", method=method, **skeleton, decode=decode, adaptation=adaptation, pose_nets=nets)
    people = SHAPE * rng.uniform(0.4, 1.2, (3, 1, 1)) + rng.uniform(20, 100, (3, 1, 2))
    poses = people[rng.integers(0, 3, 14)] + rng.normal(0, 4, (14, 3, 2))
    initial = _initial(poses, np.sort(rng.uniform(0.1, 1, 14))[::-1])
    heatmaps = rng.normal(0.4, 0.3, (4, 32, 32)).astype(np.float32)
    return spec, initial, ImageMaps(heatmaps, np.zeros((6, 32, 32), np.float32), {})


@pytest.mark.parametrize("seed", range(5))
def test_one_center_without_networks_is_the_baseline_of_logocap(seed):
    """The first row of Table 6: one center, pose NMS; the same persons as LOGO-CAP's without its adaptation."""
    found = []
    for method in ("dac", "logocap"):
        spec, initial, maps = _one_center(method, seed)
        keypoints, values, scores = method_of(spec).finish(initial, maps, {}, spec)
        kept = method_of(spec).select(keypoints, scores, spec)
        assert 3 <= len(kept) < 14
        found.append((keypoints[kept], values[kept], scores[kept]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_center_without_networks_scores_the_mean_of_its_keypoints():
    spec, initial, maps = _one_center("dac", 7)
    keypoints, values, scores = DualCenters().finish(initial, maps, {}, spec)
    np.testing.assert_array_equal(keypoints, initial.keypoints)
    full = upsample(maps.heatmaps)
    for pose, center, score in zip(keypoints, initial.scores, scores, strict=True):
        inside = ((pose > 2) & (pose < 125)).all()
        if inside:
            assert score == pytest.approx(center * np.mean([_read(full[k], *pose[k]) for k in range(3)]), abs=1e-5)
    assert len(values) == 14


@pytest.mark.parametrize("centers", ["single", "dual"])
def test_one_center_without_networks_does_not_group_by_distance(centers):
    """2.5 px apart: less than a tenth of the scale, 2.83, and more than a twentieth of the diagonal, 2.24."""
    pair = np.repeat(TWO_PEOPLE[:1], 2, axis=0) + np.float32([[[0, 0]], [[2.5, 0]]])
    decode = DecodeSpec(nms_keypoints=2, nms_distance=0.05)
    spec = _spec(**ALL_OFF).model_copy(update={"centers": centers, "decode": decode})
    keypoints, _, scores = _finish(spec, pair, [0.5, 0.4])
    kept = DualCenters().select(keypoints, scores, spec)
    assert len(kept) == {"single": 2, "dual": 1}[centers]
