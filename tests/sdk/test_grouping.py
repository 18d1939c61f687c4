"""Which poses are alike, and which of them are one person's. Oracles 8 and 9 of the design."""

import math

import numpy as np
import pytest

from posesdk.grouping import (
    distinct_poses,
    group_poses,
    group_sigma,
    near_poses,
    pose_scales,
    pose_similarity,
    spatial_density,
    spatial_similarity,
)
from posesdk.oks import oks
from posesdk.spec import ModelSpec, PoseNetsSpec

SIGMA = 0.134
SHAPE = np.array([[0, 0], [-10, 40], [10, 40]], np.float32)
"""A person of 20 x 40 px, of scale sqrt(800)."""


def test_scale_is_the_root_of_the_box_area_and_never_less_than_a_cell():
    poses = np.stack([SHAPE, SHAPE * [1, 0], SHAPE * 0.01]).astype(np.float32)
    np.testing.assert_allclose(pose_scales(poses), [math.sqrt(800), 4, 4], rtol=1e-6)


def _poses(seed, count=12):
    rng = np.random.default_rng(seed)
    people = SHAPE * rng.uniform(0.2, 3, (4, 1, 1)) + rng.uniform(0, 200, (4, 1, 2))
    return (people[rng.integers(0, 4, count)] + rng.normal(0, 6, (count, 3, 2))).astype(np.float32)


def test_spatial_similarity_is_equation_1():
    poses = _poses(4)
    density, similarity = spatial_density(poses, SIGMA), spatial_similarity(poses, SIGMA)
    areas = [max(16, np.ptp(pose[:, 0]) * np.ptp(pose[:, 1])) for pose in poses]
    for i, j in np.ndindex(len(poses), len(poses)):
        sigma = SIGMA * math.sqrt((areas[i] + areas[j]) / 2)
        distances = [math.dist(a, b) for a, b in zip(poses[i], poses[j], strict=True)]
        raw = sum(math.exp(-0.5 * (d / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)) for d in distances) / 3
        assert density[i, j] == pytest.approx(raw, rel=1e-4, abs=1e-9)
        assert similarity[i, j] == pytest.approx(raw * sigma * math.sqrt(2 * math.pi), rel=1e-4, abs=1e-6)


def test_a_pose_is_exactly_like_itself():
    poses = _poses(5)
    assert (np.diag(spatial_similarity(poses, SIGMA)) == 1).all()
    sigmas = SIGMA * pose_scales(poses)
    np.testing.assert_allclose(np.diag(spatial_density(poses, SIGMA)), 1 / (sigmas * math.sqrt(2 * math.pi)), rtol=1e-5)


def test_spatial_similarity_is_symmetric_and_knows_no_scale_and_no_place():
    poses = _poses(6)
    similarity = spatial_similarity(poses, SIGMA)
    assert 0 <= similarity.min() < 0.01
    assert ((similarity > 0.05) & (similarity < 0.95)).sum() > 10
    np.testing.assert_array_equal(similarity, similarity.T)
    np.testing.assert_allclose(spatial_similarity(poses * 4, SIGMA), similarity, rtol=0, atol=1e-5)
    moved = poses + np.float32([64, -32])
    np.testing.assert_allclose(spatial_similarity(moved, SIGMA), similarity, rtol=0, atol=1e-4)


def test_poses_that_look_unlike_are_not_similar_however_near():
    poses = np.repeat(SHAPE[None], 3, axis=0)
    looks = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    np.testing.assert_allclose(
        pose_similarity(poses, looks, SIGMA), [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]], rtol=0, atol=1e-6
    )


def _groups(alike, scores):
    return [group.tolist() for group in group_poses(np.asarray(alike), np.asarray(scores, np.float32))]


def test_duplicates_merge_and_the_best_comes_first():
    alike = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], bool)
    assert _groups(alike, [0.2, 0.9, 0.6, 0.3]) == [[1, 3], [2, 0]]


def test_groups_do_not_chain():
    alike = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    assert _groups(alike, [0.9, 0.8, 0.7]) == [[0, 1], [2]]
    assert _groups(alike, [0.8, 0.9, 0.7]) == [[1, 0, 2]]


@pytest.mark.parametrize("seed", range(8))
def test_groups_do_not_depend_on_the_order_of_the_poses(seed):
    rng = np.random.default_rng(seed)
    poses, scores = _poses(seed, 30), rng.permutation(30).astype(np.float32) / 30
    looks = rng.normal(size=(30, 4)) * 0.3 + 1
    looks = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)
    alike = pose_similarity(poses, looks, SIGMA) > 0.4
    groups = _groups(alike, scores)
    assert 3 < len(groups) < 25
    assert sorted(index for group in groups for index in group) == list(range(30))
    shuffled = rng.permutation(30)
    again = _groups(alike[np.ix_(shuffled, shuffled)], scores[shuffled])
    assert [shuffled[group].tolist() for group in again] == groups


def test_keypoints_with_sigmas_of_their_own_count_as_in_the_oks():
    """Poses of one size are as alike as their OKS with that size says."""
    rng = np.random.default_rng(9)
    poses = (SHAPE + rng.uniform(0, 8, (10, 1, 2))).astype(np.float32)
    sigmas = np.float32([0.03, 0.05, 0.1])
    labelled = np.concatenate([poses, np.ones((10, 3, 1))], axis=-1)
    expected = oks(poses, labelled, np.full(10, 800), sigmas)
    assert 0.05 < np.median(expected) < 0.95
    np.testing.assert_allclose(spatial_similarity(poses, 2 * sigmas), expected, rtol=0, atol=1e-5)


def test_sigmas_of_their_own_that_are_equal_are_one_sigma():
    poses = _poses(10)
    np.testing.assert_array_equal(spatial_similarity(poses, [SIGMA] * 3), spatial_similarity(poses, SIGMA))


def test_a_model_groups_by_one_sigma_unless_asked_for_those_of_its_skeleton():
    spec = ModelSpec(name="tiny", method="dac", pose_nets=PoseNetsSpec(group_sigma=0.2))
    assert group_sigma(spec) == 0.2
    per_keypoint = spec.pose_nets.model_copy(update={"dsp_per_keypoint_sigma": True})
    sigmas = group_sigma(spec.model_copy(update={"pose_nets": per_keypoint}))
    np.testing.assert_allclose(sigmas, [2 * sigma for sigma in spec.skeleton.sigmas], rtol=1e-6)
    assert np.mean(sigmas) == pytest.approx(PoseNetsSpec().group_sigma, abs=0.005)


def test_poses_are_near_whose_keypoints_are_a_tenth_of_their_scale_apart_in_the_mean():
    noise = np.random.default_rng(12).normal(0, 3, (15, 3, 2)).astype(np.float32)
    poses = np.concatenate([_poses(11, 15), _poses(11, 15) + noise])
    near = near_poses(poses)
    areas = [max(16, np.ptp(pose[:, 0]) * np.ptp(pose[:, 1])) for pose in poses]
    for i, j in np.ndindex(30, 30):
        apart = np.mean([math.dist(a, b) for a, b in zip(poses[i], poses[j], strict=True)])
        assert near[i, j] == (apart < 0.1 * math.sqrt((areas[i] + areas[j]) / 2))
    assert 30 < near.sum() < 500


@pytest.mark.parametrize("limit", [0.3, 0.9])
def test_of_poses_that_are_too_alike_the_better_one_stays(limit):
    poses = np.concatenate([_poses(12, 40), _poses(12, 40) + np.float32(0.5)])
    scores = np.random.default_rng(13).permutation(80).astype(np.float32)
    sigmas = [0.03, 0.05, 0.1]
    kept = []
    for index in sorted(range(80), key=lambda i: -scores[i]):
        alike = []
        for better in kept:
            distances = [math.dist(a, b) for a, b in zip(poses[index], poses[better], strict=True)]
            area = max(16, np.ptp(poses[better][:, 0]) * np.ptp(poses[better][:, 1]))
            exponents = [-(d**2) / (2 * area * (2 * s) ** 2) for d, s in zip(distances, sigmas, strict=True)]
            alike.append(np.mean(np.exp(exponents)))
        if all(one <= limit for one in alike):
            kept.append(index)
    assert 4 < len(kept) < 60
    assert distinct_poses(poses, scores, sigmas, limit).tolist() == kept


def test_nobody_is_distinct_and_an_oks_of_1_is_never_too_much():
    assert distinct_poses(np.zeros((0, 3, 2), np.float32), np.zeros(0, np.float32), [0.1] * 3, 0.9).tolist() == []
    twice = np.repeat(SHAPE[None], 2, axis=0)
    assert distinct_poses(twice, np.float32([0.5, 0.6]), [0.1] * 3, 1.0).tolist() == [1, 0]
    assert distinct_poses(twice, np.float32([0.5, 0.6]), [0.1] * 3, 0.99).tolist() == [1]
