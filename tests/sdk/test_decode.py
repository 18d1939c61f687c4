import itertools

import numpy as np
import pytest

from posesdk.decode import average_flip, decode_center_offset, suppress_poses, upsample
from posesdk.skeleton import Skeleton
from posesdk.spec import DecodeSpec, ModelSpec

FRAMES = ("published", "consistent")
THREE = Skeleton(name="three", keypoints=("top", "left", "right"), flip_pairs=((1, 2),), sigmas=(0.03, 0.05, 0.05))


def _spec(frame="consistent", centers="single", **decode):
    return ModelSpec(name="tiny", frame=frame, centers=centers, skeleton=THREE, decode=DecodeSpec(**decode))


def _random_maps(seed, height=6, width=9, centers=1):
    rng = np.random.default_rng(seed)
    shapes = (3 + centers, height, width), (6 * centers, height, width)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.mark.parametrize("centers", [1, 2])
def test_flip_average_swaps_sides_and_turns_x(centers):
    (h0, o0), (h1, o1) = _random_maps(0, centers=centers), _random_maps(1, centers=centers)
    heatmaps, offsets = average_flip(np.stack([h0, h1]), np.stack([o0, o1]), THREE)
    for channel, partner in enumerate([0, 2, 1, 3, 4][: 3 + centers]):
        for y, x in np.ndindex(6, 9):
            assert heatmaps[channel, y, x] == pytest.approx((h0[channel, y, x] + h1[partner, y, 8 - x]) / 2, abs=1e-6)
    for keypoint, partner in enumerate([0, 2, 1, 3, 5, 4][: 3 * centers]):
        for y, x in np.ndindex(6, 9):
            expected_x = (o0[2 * keypoint, y, x] - o1[2 * partner, y, 8 - x]) / 2
            expected_y = (o0[2 * keypoint + 1, y, x] + o1[2 * partner + 1, y, 8 - x]) / 2
            assert offsets[2 * keypoint, y, x] == pytest.approx(expected_x, abs=1e-6)
            assert offsets[2 * keypoint + 1, y, x] == pytest.approx(expected_y, abs=1e-6)


def test_flip_average_needs_two_images():
    heatmaps, offsets = _random_maps(0)
    with pytest.raises(ValueError, match="2 images"):
        average_flip(heatmaps[None], offsets[None], THREE)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (5, 3), (6, 9)])
def test_upsampled_pixel_is_bilinear_between_half_pixel_centers(height, width):
    maps = np.random.default_rng(2).normal(size=(2, height, width)).astype(np.float32)
    result = upsample(maps)
    assert result.shape == (2, 4 * height, 4 * width)
    for y, x in np.ndindex(4 * height, 4 * width):
        v, u = np.clip((y - 1.5) / 4, 0, height - 1), np.clip((x - 1.5) / 4, 0, width - 1)
        expected = 0
        for row, column in itertools.product(
            {int(v), min(int(v) + 1, height - 1)}, {int(u), min(int(u) + 1, width - 1)}
        ):
            expected = expected + maps[:, row, column] * (1 - abs(v - row)) * (1 - abs(u - column))
        np.testing.assert_allclose(result[:, y, x], expected, atol=1e-6)


def test_upsample_equals_torch():
    torch = pytest.importorskip("torch", reason="compares with torch's interpolation")
    maps = np.random.default_rng(3).normal(size=(5, 17, 23)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], scale_factor=4, mode="bilinear")[0]
    np.testing.assert_allclose(upsample(maps), expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", FRAMES)
def test_initial_pose_is_read_at_the_cell_of_the_center(frame):
    heatmaps, offsets = _random_maps(4, 12, 16)
    spec = _spec(frame, center_threshold=0.3, max_people=1000)
    poses = decode_center_offset(heatmaps, offsets, spec)
    assert len(poses) > 3
    full = upsample(heatmaps[3:])[0]
    expected = {}
    for y, x in np.ndindex(full.shape):
        around = full[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        on_border = x in (0, full.shape[1] - 1) or y in (0, full.shape[0] - 1)
        if full[y, x] >= 0.3 and full[y, x] == around.max() and not (on_border and frame == "consistent"):
            expected[x, y] = full[y, x]
    assert {(x, y) for x, y in poses.centers} == set(expected)
    assert (np.diff(poses.scores) <= 0).all()
    for (x, y), score, keypoints in zip(poses.centers, poses.scores, poses.keypoints, strict=True):
        assert score == expected[x, y]
        offset = offsets[:, int(y) // 4, int(x) // 4].reshape(3, 2)
        base = np.array([x, y]) if frame == "published" else np.array([x // 4, y // 4]) * 4 + 1.5
        np.testing.assert_allclose(keypoints, base - 4 * offset, atol=1e-4)


def _one_person(keypoints, center, frame):
    """Maps that say exactly where a person is: offsets of every cell point from the keypoints to that cell."""
    y, x = np.mgrid[:16, :20].astype(np.float32)
    origin = 1.5 if frame == "consistent" else 0
    u, v = (center[0] - 1.5) / 4, (center[1] - 1.5) / 4
    heatmaps = np.zeros((4, 16, 20), np.float32)
    heatmaps[3] = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 2)
    offsets = np.empty((6, 16, 20), np.float32)
    offsets[::2] = x - ((keypoints[:, 0] - origin) / 4)[:, None, None]
    offsets[1::2] = y - ((keypoints[:, 1] - origin) / 4)[:, None, None]
    return heatmaps, offsets


@pytest.mark.parametrize("center", [(30.2, 21.1), (41.0, 40.0), (55.0, 44.7)])
def test_encoded_person_is_decoded(center):
    keypoints = np.array([[10.25, 5.5], [33.0, 47.75], [60.5, 12.0]], np.float32)
    poses = decode_center_offset(*_one_person(keypoints, center, "consistent"), _spec())
    assert len(poses) == 1
    assert np.abs(poses.centers[0] - center).max() < 2.5
    np.testing.assert_allclose(poses.keypoints[0], keypoints, atol=1e-4)


def test_tail_that_touches_the_border_is_no_center_in_the_consistent_frame():
    # Pixels 0 and 1 of a row are equal, so a tail that falls towards the border has its maximum inside.
    keypoints = np.linspace([2, 20], [8, 60], 3).astype(np.float32)
    heatmaps, offsets = _one_person(keypoints, (30.0, 31.0), "consistent")
    heatmaps[-1, :, 0] = 0.2
    heatmaps[-1, :, 1] = 0.1
    assert len(decode_center_offset(heatmaps, offsets, _spec("published"))) > 1
    poses = decode_center_offset(heatmaps, offsets, _spec())
    assert (poses.centers >= 1).all()


def test_center_in_the_corner_cell_is_found_once_in_the_consistent_frame():
    # The upsampled map is flat over the outer half of a border cell, so its pixels are equal local maxima.
    keypoints = np.linspace([2, 20], [8, 60], 3).astype(np.float32)
    poses = decode_center_offset(*_one_person(keypoints, (0.5, 62.5), "consistent"), _spec())
    assert poses.centers.tolist() == [[1, 62]]
    np.testing.assert_allclose(poses.keypoints, keypoints[None], atol=1e-4)


def test_published_frame_carries_the_quantisation_of_the_center():
    keypoints = np.array([[10.25, 5.5], [33.0, 47.75], [60.5, 12.0]], np.float32)
    poses = decode_center_offset(*_one_person(keypoints, (30.2, 21.1), "published"), _spec("published"))
    np.testing.assert_allclose(poses.keypoints[0], keypoints + poses.centers[0] % 4, atol=1e-4)


def test_weak_center_is_kept_where_there_is_no_other():
    heatmaps, offsets = np.zeros((4, 8, 8), np.float32), np.zeros((6, 8, 8), np.float32)
    heatmaps[3, 2, 5] = 0.004
    heatmaps[3, 6, 1] = 0.003
    weak = decode_center_offset(heatmaps, offsets, _spec())
    assert len(weak) == 1
    assert weak.scores[0] < 0.01
    assert (weak.centers[0] // 4).tolist() == [5, 2]
    heatmaps[3, 6, 1] = 0.8
    strong = decode_center_offset(heatmaps, offsets, _spec())
    assert set(map(tuple, strong.centers // 4)) == {(1, 6)}


def test_center_map_without_positive_value_gives_no_poses():
    for value in (0, -0.5):
        heatmaps = np.full((4, 8, 8), value, np.float32)
        poses = decode_center_offset(heatmaps, np.zeros((6, 8, 8), np.float32), _spec(center_threshold=0))
        assert len(poses) == 0
        assert poses.keypoints.shape == (0, 3, 2)
        assert poses.centers.shape == (0, 2)


def test_no_more_than_max_people_are_kept_best_first():
    heatmaps, offsets = _random_maps(5, 16, 16)
    everyone = decode_center_offset(heatmaps, offsets, _spec(max_people=100))
    few = decode_center_offset(heatmaps, offsets, _spec(max_people=4))
    assert len(everyone) > 8
    np.testing.assert_array_equal(few.scores, np.sort(everyone.scores)[::-1][:4])
    np.testing.assert_array_equal(few.keypoints, everyone.keypoints[:4])


def test_a_peak_without_offsets_is_the_middle_of_its_cell():
    heatmaps, offsets = np.zeros((5, 8, 9), np.float32), np.zeros((12, 8, 9), np.float32)
    heatmaps[4, 3, 6] = 0.7
    poses = decode_center_offset(heatmaps, offsets, _spec(centers="dual"))
    assert set(map(tuple, poses.keypoints.reshape(-1, 2).tolist())) == {(4 * 6 + 1.5, 4 * 3 + 1.5)}
    assert set(poses.kinds.tolist()) == {1}


def _two_centers(keypoints, head, body):
    """Maps of a person seen from two centers, the body's half as high."""
    (of_head, head_offsets), (of_body, body_offsets) = (
        _one_person(keypoints, center, "consistent") for center in (head, body)
    )
    return np.concatenate([of_head, of_body[3:] / 2]), np.concatenate([head_offsets, body_offsets])


def test_encoded_person_is_decoded_from_both_centers():
    keypoints = np.array([[10.25, 5.5], [33.0, 47.75], [60.5, 12.0]], np.float32)
    heatmaps, offsets = _two_centers(keypoints, (30.2, 21.1), (41.3, 44.9))
    offsets[6:] += np.tile([1, 2], 3)[:, None, None]  # a body center that is off shows whose offsets were read
    poses = decode_center_offset(heatmaps, offsets, _spec(centers="dual"))
    assert poses.kinds.tolist() == [0, 1]
    assert np.abs(poses.centers - [[30.2, 21.1], [41.3, 44.9]]).max() < 2.5
    np.testing.assert_allclose(poses.keypoints[0], keypoints, atol=1e-4)
    np.testing.assert_allclose(poses.keypoints[1], keypoints - [4, 8], atol=1e-4)


@pytest.mark.parametrize("frame", FRAMES)
def test_two_centers_are_both_decoded_as_one_is(frame):
    heatmaps, offsets = _random_maps(8, 16, 20, centers=2)
    settings = {"center_threshold": 0.4, "max_people": 6}
    poses = decode_center_offset(heatmaps, offsets, _spec(frame, "dual", **settings))
    assert (np.diff(poses.scores) <= 0).all()
    for kind in (0, 1):
        channels = [0, 1, 2, 3 + kind]
        alone = decode_center_offset(heatmaps[channels], offsets[6 * kind :][:6], _spec(frame, **settings))
        assert len(alone) == 6
        of_kind = poses.kinds == kind
        np.testing.assert_array_equal(poses.keypoints[of_kind], alone.keypoints)
        np.testing.assert_array_equal(poses.centers[of_kind], alone.centers)
        np.testing.assert_array_equal(poses.scores[of_kind], alone.scores)
    assert len(poses) == 12


def test_weak_center_is_kept_where_there_is_no_other_of_any_kind():
    heatmaps, offsets = np.zeros((5, 8, 8), np.float32), np.zeros((12, 8, 8), np.float32)
    heatmaps[3, 2, 5], heatmaps[4, 6, 1] = 0.003, 0.004
    weak = decode_center_offset(heatmaps, offsets, _spec(centers="dual"))
    assert weak.kinds.tolist() == [1]
    assert (weak.centers[0] // 4).tolist() == [1, 6]
    heatmaps[3, 2, 5] = 0.8
    strong = decode_center_offset(heatmaps, offsets, _spec(centers="dual"))
    assert set(strong.kinds.tolist()) == {0}
    heatmaps[3, 2, 5], heatmaps[4, 6, 1], heatmaps[4, 2, 5] = 0.003, 0.8, 0.5
    bodies = decode_center_offset(heatmaps, offsets, _spec(centers="dual"))
    assert set(bodies.kinds.tolist()) == {1}
    assert set(map(tuple, bodies.centers // 4)) == {(1, 6), (5, 2)}
    assert len(decode_center_offset(heatmaps * 0, offsets, _spec(centers="dual", center_threshold=0))) == 0


def test_maps_of_an_image_and_its_mirror_image_agree_about_both_centers():
    heatmaps, offsets = _random_maps(9, centers=2)
    turned = offsets.reshape(2, 3, 2, 6, 9)[:, [0, 2, 1], ..., ::-1] * np.float32([-1, 1])[:, None, None]
    mirrored = heatmaps[[0, 2, 1, 3, 4], :, ::-1]
    mean = average_flip(np.stack([heatmaps, mirrored]), np.stack([offsets, turned.reshape(12, 6, 9)]), THREE)
    np.testing.assert_array_equal(mean[0], heatmaps)
    np.testing.assert_array_equal(mean[1], offsets)


def test_mirrored_maps_give_mirrored_poses():
    """Oracle 4: x becomes W - 1 - x exactly, without a shift."""
    heatmaps, offsets = _random_maps(10, 12, 17, centers=2)
    spec = _spec(centers="dual", center_threshold=0.5)
    turned = offsets.reshape(2, 3, 2, 12, 17)[:, [0, 2, 1], ..., ::-1] * np.float32([-1, 1])[:, None, None]
    poses = decode_center_offset(heatmaps, offsets, spec)
    mirrored = decode_center_offset(heatmaps[[0, 2, 1, 3, 4], :, ::-1], turned.reshape(12, 12, 17), spec)
    assert len(poses) == len(mirrored) > 8
    expected = poses.keypoints[:, [0, 2, 1]] * [-1, 1] + [4 * 17 - 1, 0]
    np.testing.assert_allclose(mirrored.keypoints, expected, rtol=0, atol=1e-4)


def test_maps_of_another_skeleton_are_refused():
    heatmaps, offsets = _random_maps(6)
    with pytest.raises(ValueError, match="expected 18 heatmaps and 34 offset maps"):
        decode_center_offset(heatmaps, offsets, ModelSpec(name="coco"))
    with pytest.raises(ValueError, match=r"expected 5 heatmaps and 12 offset maps .* got 4 and 6"):
        decode_center_offset(heatmaps, offsets, _spec(centers="dual"))


def test_suppression_is_the_reference(reference):
    arrays = reference("nms")
    kept = suppress_poses(arrays["poses"], arrays["scores"], DecodeSpec())
    np.testing.assert_array_equal(kept, arrays["keep"])


def _suppress_by_loops(poses, scores, reach, keypoints):
    ignored, kept = set(), []
    for i, pose in enumerate(poses):
        if i in ignored:
            continue
        diagonal = np.hypot(np.ptp(pose[:, 0]), np.ptp(pose[:, 1]))
        near = [
            j
            for j, other in enumerate(poses)
            if sum(np.hypot(*(a - b)) < reach * diagonal for a, b in zip(pose, other, strict=True)) > keypoints
        ]
        if near:
            best = max(near, key=lambda j: scores[j])
            if best not in ignored:
                kept.append(best)
            ignored.update(near)
    return kept


@pytest.mark.parametrize("seed", range(12))
def test_suppression_equals_loops(seed):
    rng = np.random.default_rng(seed)
    # As much noise as makes about half of the keypoints near, and boxes of all sizes, so that near is not mutual.
    people = rng.uniform(0, 300, (5, 17, 2))
    poses = people[rng.integers(0, 5, 30)] + rng.normal(0, 12, (30, 17, 2))
    poses[::2, 0] *= rng.uniform(0.2, 2.5, (15, 1))
    poses, scores = poses.astype(np.float32), rng.random(30).astype(np.float32)
    kept = suppress_poses(poses, scores, DecodeSpec()).tolist()
    assert 3 < len(kept) < 30
    assert kept == _suppress_by_loops(poses, scores, 0.05, 8)


def test_pose_without_extent_goes():
    poses = np.stack([np.full((17, 2), 5), np.arange(34).reshape(17, 2)]).astype(np.float32)
    assert suppress_poses(poses, np.array([0.9, 0.1], np.float32), DecodeSpec()).tolist() == [1]


def test_suppression_can_be_switched_off():
    poses = np.random.default_rng(7).uniform(0, 9, (4, 3, 2)).astype(np.float32)
    scores = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    for off in (DecodeSpec(nms_distance=0), DecodeSpec(nms_keypoints=3)):
        assert suppress_poses(poses, scores, off).tolist() == [0, 1, 2, 3]
    best = suppress_poses(poses, scores, DecodeSpec(nms_distance=0, max_people=2))
    assert best.tolist() == [1, 3]


def test_no_poses_are_suppressed_to_none():
    kept = suppress_poses(np.zeros((0, 17, 2), np.float32), np.zeros(0, np.float32), DecodeSpec())
    assert kept.shape == (0,)
    assert np.zeros((0, 17, 2))[kept].shape == (0, 17, 2)
