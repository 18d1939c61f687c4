"""What the decoder leaves out changes no bit of what it finds."""

import numpy as np
import pytest

import plain_formulas
from posesdk.decode import decode_center_offset, suppress_poses
from posesdk.skeleton import Skeleton
from posesdk.spec import DecodeSpec, ModelSpec

THREE = Skeleton(name="three", keypoints=("top", "left", "right"), flip_pairs=((1, 2),), sigmas=(0.03, 0.05, 0.05))
FRAMES = ("published", "consistent")


def _compare(cells, frame, centers="single", **decode):
    """`cells` (Q, h, w), the center maps; the offsets of every cell are its own."""
    cells = np.asarray(cells, np.float32)
    spec = ModelSpec(name="tiny", frame=frame, centers=centers, skeleton=THREE, decode=DecodeSpec(**decode))
    height, width = cells.shape[1:]
    heatmaps = np.concatenate([np.zeros((3, height, width), np.float32), cells])
    offsets = np.random.default_rng(0).normal(size=(6 * len(cells), height, width)).astype(np.float32)
    poses, expected = (
        decode(heatmaps, offsets, spec) for decode in (decode_center_offset, plain_formulas.decode_center_offset)
    )
    for name in ("keypoints", "scores", "centers", "kinds"):
        np.testing.assert_array_equal(getattr(poses, name), getattr(expected, name))
    return len(poses)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (2, 3), (9, 14), (40, 8)])
def test_centers_are_those_of_the_whole_map(shape, threshold, frame):
    rng = np.random.default_rng(1)
    for sharpness in (1, 8, 60):  # from centers everywhere to one or none
        _compare(rng.uniform(0, 1, (1, *shape)) ** sharpness, frame, center_threshold=threshold)
        _compare(rng.normal(size=(1, *shape)), frame, center_threshold=threshold)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_center_in_any_single_cell_is_that_of_the_whole_map(frame):
    for row, column in np.ndindex(7, 6):
        cells = np.full((1, 7, 6), 0.01)
        cells[0, row, column] = 0.8
        assert _compare(cells, frame, center_threshold=0.1) >= 1


@pytest.mark.parametrize("frame", FRAMES)
def test_equal_neighbours_are_found_as_often_as_in_the_whole_map(frame):
    """A plateau is a maximum at each of its pixels, and interpolation of equal values may round up."""
    rng = np.random.default_rng(2)
    for value in np.float32([0.1, 1 / 3, 0.7, 0.05]):
        cells = np.zeros((1, 12, 10), np.float32)
        cells[0, 3:6, 2:7] = value
        cells[0, 9:11] = rng.choice(np.float32([0, value]), 10)
        assert _compare(cells, frame, center_threshold=float(value)) > 1
        assert _compare(np.full((1, 6, 8), value), frame, center_threshold=float(value)) > 1
        assert (
            _compare(np.full((1, 6, 8), np.nextafter(value, np.float32(0))), frame, center_threshold=float(value)) > 0
        )


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("people", [1, 3, 1000])
def test_centers_of_two_kinds_are_those_of_the_whole_maps(people, frame):
    rng = np.random.default_rng(3)
    for _ in range(10):
        cells = rng.uniform(0, 1, (2, 11, 9)) ** 6
        cells[rng.integers(2)] *= rng.choice([0, 0.03, 1])
        _compare(cells, frame, "dual", center_threshold=0.05, max_people=people)
        # Rounded values tie within a kind and between the kinds.
        _compare(np.round(cells, 1), frame, "dual", center_threshold=0.05, max_people=people)
    assert _compare(np.zeros((2, 4, 4)), frame, "dual", center_threshold=0.0) == 0


@pytest.mark.parametrize("count", [0, 1, 2, 5, 30, 60])
def test_suppression_is_that_of_all_differences(count):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        people = rng.uniform(0, 300, (max(count // 3, 1), 17, 2))
        poses = people[rng.integers(0, len(people), count)] + rng.normal(0, rng.choice([2, 12]), (count, 17, 2))
        poses[::2, 0] *= rng.uniform(0.2, 2.5, (len(poses[::2]), 1))
        scores = np.round(rng.random(count), 1).astype(np.float32)  # ties
        poses = np.concatenate([poses, poses[:1], np.full((min(count, 1), 17, 2), 9.0)]).astype(np.float32)
        scores = np.concatenate([scores, scores[:1], scores[:1]])
        for settings in ({}, {"max_people": 4}, {"nms_distance": 0.3, "nms_keypoints": 0}):
            decode = DecodeSpec(**settings)
            expected = plain_formulas.suppress_poses(poses, scores, decode)
            np.testing.assert_array_equal(suppress_poses(poses, scores, decode), expected)
