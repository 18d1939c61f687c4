"""What DAC's networks see of a pose, and the persons among poses, against the plain formulas."""

import numpy as np
import pytest

import plain_pose_nets
from posesdk.dual_centers import level_channels, pose_context
from posesdk.grouping import group_poses
from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk.spec import EdgeBackboneSpec, HRNetSpec, ModelSpec, PoseNetsSpec


def _spec(backbone, skeleton=COCO_17, patch=5):
    return ModelSpec(
        name="tiny",
        method="dac",
        centers="dual",
        skeleton=skeleton,
        backbone=backbone,
        pose_nets=PoseNetsSpec(patch=patch),
    )


def _compare(spec, keypoints, height, width):
    rng = np.random.default_rng(1)
    maps = {
        f"level{r}": rng.normal(size=(max(height >> r, 1), max(width >> r, 1), depth)).astype(np.float32)
        for r, depth in enumerate(level_channels(spec))
    }
    maps["heatmaps"] = rng.normal(size=(len(spec.skeleton) + 2, height, width)).astype(np.float32)
    keypoints = np.asarray(keypoints, np.float32)
    expected = plain_pose_nets.pose_context(keypoints, maps, spec)
    context = pose_context(keypoints, maps, spec)
    assert context.dtype == np.float32
    np.testing.assert_allclose(context, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("persons", [0, 1, 9, 60])
@pytest.mark.parametrize("backbone", [EdgeBackboneSpec(neck=12), HRNetSpec()], ids=lambda backbone: backbone.kind)
def test_context_is_that_of_one_level_after_the_other(backbone, persons):
    """Of 60 the places of a level are worked on in parts."""
    places = np.random.default_rng(2).uniform([-30, -30], [130, 100], (persons, 17, 2))
    _compare(_spec(backbone), places, 16, 24)


@pytest.mark.parametrize("patch", [1, 3, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 3), (5, 16)])
def test_context_at_borders_and_far_beyond_is_that_of_one_level_after_the_other(height, width, patch):
    rng = np.random.default_rng(3)
    edges = np.array([-1e15, -40, -6.5, -2.5, 0, 1.5, 1.5 + 4 * (width - 1), 4 * height, 77, 1e9])
    places = rng.choice(edges, (20, 14, 2))
    _compare(_spec(EdgeBackboneSpec(neck=3), CROWDPOSE_14, patch), places, height, width)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
def test_persons_are_those_of_all_poses_compared(count):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        alike = rng.random((count, count)) < rng.choice([0, 0.1, 0.4, 1])
        scores = np.round(rng.random(count), 1).astype(np.float32)  # ties
        groups, expected = group_poses(alike, scores), plain_pose_nets.group_poses(alike, scores)
        assert [group.tolist() for group in groups] == [group.tolist() for group in expected]
        assert sorted(index for group in groups for index in group) == list(range(count))
