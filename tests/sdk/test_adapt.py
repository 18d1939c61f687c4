"""The adaptation against formulas and brute loops, stage by stage.

Long, because every stage is written a second time here as the plain loop that it is compared with.
"""

from math import exp, floor

import numpy as np
import pytest

from posesdk.adapt import adapt_poses, uses_attraction
from posesdk.context import expansion_axes, local_context
from posesdk.decode import InitialPoses, decode_center_offset, upsample
from posesdk.responses import convolve_windows, find_peaks
from posesdk.skeleton import Skeleton
from posesdk.spec import AdaptationSpec, ModelSpec
from posesdk.windows import reweighing_window, sample_windows

FRAMES = ("published", "consistent")
TWO = Skeleton(name="two", keypoints=("eye", "hip"), sigmas=(0.025, 0.1))
SMALL = {"local_size": 5, "global_size": 9, "reweigh_sigma": 3.0}
PLACES = np.array(
    [
        [[20.3, 14.8], [9.5, 9.5]],  # inside
        [[-3.2, 5.0], [1.1, -7.9]],  # over the left and the top border
        [[46.4, 11.7], [47.6, 31.2]],  # over the right and the bottom border
        [[44.0, 28.0], [47.0, 31.0]],  # on whole pixels, the last one included
        [[-60.0, 90.0], [400.5, -1e30]],  # far outside
    ],
    np.float32,
)


def _spec(frame="consistent", **adaptation):
    return ModelSpec(name="tiny", frame=frame, skeleton=TWO, adaptation=AdaptationSpec(**{**SMALL, **adaptation}))


def _maps(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _initial(keypoints, scores=None):
    count = len(keypoints)
    scores = np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32)
    centers, kinds = np.zeros((count, 2), np.float32), np.zeros(count, np.intp)
    return InitialPoses(np.asarray(keypoints, np.float32), scores, centers, kinds)


def _sample(image, x, y, frame):
    """One bilinear sample of (h, w) or (h, w, d) at a pixel index, by the rules of the design written out."""

    def taps(position, size):
        last = size - 1
        if frame == "consistent":
            position = min(max(position, 0), last)
            low = floor(position)
            return ((low, 1 - (position - low)), (min(low + 1, last), position - low))
        low = min(max(floor(position), 0), last)
        high = min(low + 1, last)
        return ((low, min(max(high - position, 0), 1)), (high, min(max(position - low, 0), 1)))

    return sum(
        image[row, column] * row_weight * column_weight
        for row, row_weight in taps(float(y), image.shape[0])
        for column, column_weight in taps(float(x), image.shape[1])
    )


def test_expansion_step_grows_with_sigma():
    xs, ys = expansion_axes(PLACES[:1], _spec())
    np.testing.assert_allclose(xs[0, 0], 20.3 + np.array([-2, -1, 0, 1, 2]), atol=1e-5)
    np.testing.assert_allclose(ys[0, 1], 9.5 + 4 * np.array([-2, -1, 0, 1, 2]), atol=1e-5)


@pytest.mark.parametrize("frame", FRAMES)
def test_local_context_is_the_embedding_on_the_mesh(frame):
    spec = _spec(frame)
    embedding = _maps(0, 8, 12, 3)
    context = local_context(PLACES, embedding, spec).reshape(5, 2, 3, 5, 5)
    origin = 1.5 if frame == "consistent" else 0
    for person, keypoint, row, column in np.ndindex(5, 2, 5, 5):
        step = TWO.sigmas[keypoint] / 0.025
        x, y = PLACES[person, keypoint] + step * (np.array([column, row]) - 2)
        expected = _sample(embedding, (x - origin) / 4, (y - origin) / 4, frame)
        np.testing.assert_allclose(context[person, keypoint, :, row, column], expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 9, 21])
@pytest.mark.parametrize("frame", FRAMES)
def test_window_is_a_sample_of_the_upsampled_map(frame, size):
    heatmaps = _maps(1, 3, 8, 12)
    full = upsample(heatmaps)
    windows = sample_windows(PLACES, heatmaps, size, frame)
    assert windows.shape == (5, 2, size, size)
    for person, keypoint, row, column in np.ndindex(windows.shape):
        x, y = PLACES[person, keypoint] + np.float32([column - size // 2, row - size // 2])
        expected = _sample(full[keypoint], x, y, frame)
        assert windows[person, keypoint, row, column] == pytest.approx(expected, abs=1e-5)


def test_published_sampling_drops_to_zero_at_the_last_pixel_and_ramps_back():
    ones = np.ones((2, 8, 12), np.float32)
    for x, expected in [(46.9, 1), (47, 0), (47.25, 0.25), (47.75, 0.75), (48, 1), (60, 1), (-0.5, 1)]:
        pose = np.array([[[x, 10], [10, 10]]], np.float32)
        assert sample_windows(pose, ones, 1, "published")[0, 0] == pytest.approx(expected, abs=1e-5)
        assert sample_windows(pose, ones, 1, "consistent")[0, 0] == pytest.approx(1, abs=1e-6)


def test_gaussian_has_its_sigma_and_its_cutoff():
    window = reweighing_window(AdaptationSpec(global_size=17, reweigh_sigma=2.5))
    for y, x in np.ndindex(17, 17):
        value = exp(-((x - 8) ** 2 + (y - 8) ** 2) / (2 * 2.5**2))
        assert window[y, x] == pytest.approx(value if value >= 1e-4 else 0, abs=1e-6)
    assert (window == 0).sum() == 4
    for flat in (AdaptationSpec(reweigh_sigma=None), AdaptationSpec(prior="kam")):
        assert (reweighing_window(flat) == 1).all()


@pytest.mark.parametrize(("size", "local"), [(9, 5), (13, 11), (3, 7)])
def test_convolution_is_the_sum_over_the_flipped_kernel(size, local):
    windows, kernels = _maps(2, 2, 2, size, size), _maps(3, 2, 2, local, local).clip(0, 1)
    refined = convolve_windows(windows, kernels)
    radius = local // 2
    padded = np.pad(windows, [(0, 0), (0, 0), (radius, radius), (radius, radius)])
    for y, x in np.ndindex(size, size):
        below = padded[:, :, y : y + local, x : x + local]
        expected = (below * kernels[:, :, ::-1, ::-1]).sum(axis=(2, 3)) / local**2
        np.testing.assert_allclose(refined[:, :, y, x], expected, atol=1e-6)


def test_peaks_are_the_two_largest():
    maps = _maps(4, 3, 2, 7, 7)
    before = maps.copy()
    indices, values = find_peaks(maps)
    order = np.argsort(-maps.reshape(3, 2, 49), axis=-1)[..., :2]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(maps.reshape(3, 2, 49), order, -1))
    np.testing.assert_array_equal(maps, before)


@pytest.mark.parametrize("frame", FRAMES)
def test_full_adaptation_equals_its_steps_written_out(frame):
    spec = _spec(frame)
    heatmaps, attraction = _maps(5, 3, 8, 12), _maps(6, 5, 2, 5, 5)
    scores = np.linspace(0.9, 0.2, 5)
    keypoints, values = adapt_poses(_initial(PLACES, scores), heatmaps, attraction, spec)
    full = upsample(heatmaps)
    for person, keypoint in np.ndindex(5, 2):
        x0, y0 = PLACES[person, keypoint]
        window = np.array(
            [
                [
                    _sample(full[keypoint], x0 + np.float32(dx), y0 + np.float32(dy), frame)
                    * exp(-(dx * dx + dy * dy) / 18)
                    for dx in range(-4, 5)
                ]
                for dy in range(-4, 5)
            ]
        )
        kernel = attraction[person, keypoint].clip(0, 1)
        refined = np.zeros((9, 9))
        for y, x, row, column in np.ndindex(9, 9, 5, 5):
            v, u = y + row - 2, x + column - 2
            if 0 <= v < 9 and 0 <= u < 9:
                refined[y, x] += window[v, u] * kernel[4 - row, 4 - column] / 25
        first, second, third = np.argsort(-refined, axis=None)[:3]
        assert refined.flat[second] - refined.flat[third] > 2e-6
        place = 0.75 * np.array(divmod(first, 9)) + 0.25 * np.array(divmod(second, 9)) - 4
        np.testing.assert_allclose(keypoints[person, keypoint], [x0 + place[1], y0 + place[0]], rtol=1e-6, atol=1e-4)
        value = 0.75 * refined.flat[first] + 0.25 * refined.flat[second]
        assert values[person, keypoint] == pytest.approx(value * scores[person], abs=1e-6)


@pytest.mark.parametrize("frame", FRAMES)
def test_person_drawn_into_the_maps_is_found(frame):
    """Offsets that are up to 6 px wrong, heatmaps that are right, and attraction to the keypoint itself."""
    truth = np.array([[30.5, 21.5], [66.0, 70.3]])
    y, x = np.mgrid[:24, :24]
    center = (49.5, 49.5)
    heatmaps = np.stack(
        [np.exp(-((x - (px - 1.5) / 4) ** 2 + (y - (py - 1.5) / 4) ** 2) / 4) for px, py in [*truth, center]]
    ).astype(np.float32)
    origin = 1.5 if frame == "consistent" else 0
    wrong = (truth + np.array([[5, -4], [-6, 3]]) - origin) / 4
    offsets = np.stack([axis - value for point in wrong for axis, value in zip((x, y), point, strict=True)])
    spec = _spec(frame, local_size=3, global_size=33, reweigh_sigma=16.0)
    initial = decode_center_offset(heatmaps, offsets.astype(np.float32), spec)
    attraction = np.zeros((len(initial), 2, 3, 3), np.float32)
    attraction[:, :, 1, 1] = 1
    keypoints, scores = adapt_poses(initial, heatmaps, attraction, spec)
    assert np.abs(initial.keypoints[0] - truth).max() > 3
    np.testing.assert_allclose(keypoints[0], truth, atol=1.2)
    assert (scores[0] > 0.5 / 9 * initial.scores[0]).all()


def test_level_none_keeps_the_pose_and_reads_its_heatmap():
    spec = _spec(level="none")
    heatmaps = _maps(7, 3, 8, 12)
    keypoints, scores = adapt_poses(_initial(PLACES, [0.5] * 5), heatmaps, None, spec)
    np.testing.assert_array_equal(keypoints, PLACES)
    full = upsample(heatmaps)
    for person, keypoint in np.ndindex(5, 2):
        value = _sample(full[keypoint], *PLACES[person, keypoint], "consistent")
        assert scores[person, keypoint] == pytest.approx(0.5 * value, abs=1e-6)


def test_level_partial_takes_the_best_point_of_the_mesh():
    attraction = np.full((1, 2, 5, 5), 0.1, np.float32)
    attraction[0, 0, 4, 1], attraction[0, 1, 0, 3] = 0.7, 1.8
    keypoints, scores = adapt_poses(_initial(PLACES[:1], [0.5]), _maps(8, 3, 8, 12), attraction, _spec(level="partial"))
    np.testing.assert_allclose(keypoints[0], [[20.3 - 1, 14.8 + 2], [9.5 + 4, 9.5 - 8]], atol=1e-4)
    np.testing.assert_allclose(scores[0], [0.35, 0.5], atol=1e-6)


def test_prior_kem_needs_no_attraction_and_finds_the_peak_of_the_window():
    heatmaps = np.zeros((3, 8, 12), np.float32)
    heatmaps[:2, 4, 5] = 1  # its pixels are 21 and 22, 17 and 18
    pose = np.array([[[22.0, 19.0], [19.0, 16.0]]], np.float32)
    keypoints, _ = adapt_poses(_initial(pose), heatmaps, None, _spec(prior="kem"))
    assert (np.abs(keypoints[0] - [21.5, 17.5]) <= 0.5 + 1e-5).all()


def test_prior_kam_differs_from_both_by_the_gaussian_alone():
    heatmaps, attraction = _maps(9, 3, 8, 12), _maps(10, 5, 2, 5, 5)
    alone = adapt_poses(_initial(PLACES), heatmaps, attraction, _spec(prior="kam"))
    flat = adapt_poses(_initial(PLACES), heatmaps, attraction, _spec(reweigh_sigma=None))
    both = adapt_poses(_initial(PLACES), heatmaps, attraction, _spec())
    np.testing.assert_array_equal(alone[0], flat[0])
    assert not np.array_equal(alone[0], both[0])


@pytest.mark.parametrize("level", ["full", "partial"])
def test_keypoint_without_attraction_stays_with_score_zero(level):
    attraction = _maps(11, 1, 2, 5, 5)
    attraction[0, 0] = -0.3
    keypoints, scores = adapt_poses(_initial(PLACES[:1]), _maps(12, 3, 8, 12), attraction, _spec(level=level))
    np.testing.assert_array_equal(keypoints[0, 0], PLACES[0, 0])
    assert scores[0, 0] == 0
    assert scores[0, 1] != 0


@pytest.mark.parametrize(
    ("adaptation", "expected"),
    [
        ({}, True),
        ({"prior": "kam"}, True),
        ({"prior": "kem"}, False),
        ({"level": "none"}, False),
        ({"level": "partial", "prior": "kem"}, True),
    ],
)
def test_attraction_is_asked_for_where_it_is_used(adaptation, expected):
    spec = _spec(**adaptation)
    assert uses_attraction(spec) is expected
    if expected:
        with pytest.raises(ValueError, match="expected attraction maps"):
            adapt_poses(_initial(PLACES), _maps(13, 3, 8, 12), None, spec)


def test_attraction_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected attraction maps \(5, 2, 5, 5\), got shape \(5, 2, 7, 7\)"):
        adapt_poses(_initial(PLACES), _maps(14, 3, 8, 12), _maps(15, 5, 2, 7, 7), _spec())


@pytest.mark.parametrize("level", ["full", "partial", "none"])
@pytest.mark.parametrize("frame", FRAMES)
def test_no_person_keeps_the_shapes(frame, level):
    spec = _spec(frame, level=level)
    nobody = _initial(PLACES[:0])
    assert local_context(nobody.keypoints, _maps(16, 8, 12, 3), spec).shape == (0, 6, 5, 5)
    keypoints, scores = adapt_poses(nobody, _maps(17, 3, 8, 12), np.zeros((0, 2, 5, 5), np.float32), spec)
    assert keypoints.shape == (0, 2, 2)
    assert scores.shape == (0, 2)
    assert sample_windows(nobody.keypoints, _maps(18, 3, 8, 12), 9, frame).shape == (0, 2, 9, 9)


@pytest.mark.parametrize("frame", FRAMES)
def test_random_maps_of_any_size_give_finite_poses(frame):
    rng = np.random.default_rng(19)
    for _ in range(60):
        height, width = rng.choice([1, 2, 3, 7, 16, 40], 2)
        scale = rng.choice([1e-6, 1, 1e4])
        spec = _spec(
            frame,
            local_size=int(rng.choice([1, 3, 7])),
            global_size=int(rng.choice([1, 5, 31])),
            level=str(rng.choice(["full", "full", "partial", "none"])),
            prior=str(rng.choice(["both", "kem", "kam"])),
        )
        heatmaps = (rng.normal(size=(3, height, width)) * scale).astype(np.float32)
        offsets = (rng.normal(size=(4, height, width)) * rng.choice([0, 3, 1e3, 1e7])).astype(np.float32)
        initial = decode_center_offset(heatmaps, offsets, spec)
        size = spec.adaptation.local_size
        context = local_context(initial.keypoints, _maps(20, height, width, 2), spec)
        assert context.shape == (len(initial), 4, size, size)
        attraction = rng.normal(size=(len(initial), 2, size, size)).astype(np.float32)
        keypoints, scores = adapt_poses(initial, heatmaps, attraction, spec)
        for values in (initial.keypoints, context, keypoints, scores):
            assert np.isfinite(values).all()
            assert values.dtype == np.float32
        assert np.abs(keypoints - initial.keypoints).max(initial=0) <= 20


@pytest.mark.parametrize("kind", [np.float16, np.float64])
@pytest.mark.parametrize("size", [9, 33])
def test_maps_of_another_precision_give_what_the_same_numbers_give_in_float32(kind, size):
    """A graph may hand out float16; the numbers here are whole in both."""
    spec, numbers = _spec(global_size=size), np.random.default_rng(3)
    maps = numbers.integers(0, 64, (3, 12, 16)).astype(kind)
    attraction = (numbers.integers(0, 64, (5, 2, 5, 5)) / 64).astype(kind)
    found = adapt_poses(_initial(PLACES), maps, attraction, spec)
    wanted = adapt_poses(_initial(PLACES), maps.astype(np.float32), attraction.astype(np.float32), spec)
    for values, expected in zip(found, wanted, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected)
