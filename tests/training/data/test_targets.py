import numpy as np
import pytest

from posesdk.decode import decode_center_offset
from posesdk.spec import DecodeSpec, ModelSpec
from posesdk_training.data.targets import Blank, GridPersons, encode_dense, net_to_cells
from posesdk_training.settings.samples import TargetConfig

SIDE = 160
CELLS = (SIDE // 4, SIDE // 4)
FRAMES = ("published", "consistent")
GAUSSIAN = TargetConfig(
    keypoint_sigma_per_size=0.045,
    center_sigma_per_size=0.08,
    offset_window="gaussian",
    offset_weight="inverse_size",
    min_center_area=0,
)


def persons_at(net_keypoints, frame, areas=None):
    """(P, K, 2 or 3) net px, every keypoint labelled unless v is given, the center at the mean."""
    points = np.asarray(net_keypoints, dtype=np.float32)
    if points.shape[-1] == 2:
        points = np.concatenate([points, np.full((*points.shape[:2], 1), 2, np.float32)], axis=-1)
    consistent = frame == "consistent"
    centers = points[..., :2].mean(1)
    extent = np.ptp(points[..., :2], axis=1)
    areas = np.prod(extent, axis=1) if areas is None else np.asarray(areas)
    ones = np.ones((len(points), 1), np.float32)
    grid = points.copy()
    grid[..., :2] = net_to_cells(points[..., :2], consistent=consistent)
    return GridPersons(
        keypoints=grid,
        centers=np.concatenate([net_to_cells(centers, consistent=consistent), ones], axis=1)[:, None],
        areas=areas.astype(np.float32),
        sizes=np.sqrt(np.prod(extent, axis=1)).astype(np.float32) / 4,
        center_cells=np.floor(centers / 4).astype(np.int64)[:, None],
    )


def standing_person(rng, x, y):
    points = np.stack([rng.uniform(-12, 12, 17), rng.uniform(-25, 25, 17)], axis=1)
    return points - points.mean(0) + (x, y)


def round_trip(net_keypoints, frame, config):
    targets = encode_dense(persons_at(net_keypoints, frame), CELLS, config)
    spec = ModelSpec(name="round-trip", frame=frame, decode=DecodeSpec(center_threshold=0.5))
    return decode_center_offset(targets.heatmaps, targets.offsets, spec)


@pytest.mark.parametrize("config", [TargetConfig(), GAUSSIAN], ids=["square", "gaussian"])
@pytest.mark.parametrize("seed", range(5))
def test_decoder_inverts_the_encoder_in_the_consistent_frame(config, seed):
    rng = np.random.default_rng(seed)
    people = np.stack([standing_person(rng, 40 + rng.uniform(0, 4), 60 + rng.uniform(0, 4)),
                       standing_person(rng, 110 + rng.uniform(0, 4), 90 + rng.uniform(0, 4))])  # fmt: skip
    found = round_trip(people, "consistent", config)
    order = np.argsort(found.centers[:, 0])
    assert len(found) == 2
    np.testing.assert_allclose(found.keypoints[order], people, atol=1e-3)
    assert np.abs(found.centers[order] - people.mean(1)).max() <= 2.1  # upsampled maps peak between cell centers


@pytest.mark.parametrize("seed", range(5))
def test_published_frame_adds_the_quantisation_of_the_center(seed):
    """There offsets are read at cell floor(X / 4) and counted from X / 4: each pose is shifted by X mod 4, Y mod 4."""
    rng = np.random.default_rng(seed)
    people = standing_person(rng, 70 + rng.uniform(0, 4), 80 + rng.uniform(0, 4))[None]
    found = round_trip(people, "published", TargetConfig())
    best = found.keypoints[0], found.centers[0]
    np.testing.assert_allclose(best[0] - best[1] % 4, people[0], atol=1e-3)


@pytest.mark.parametrize("frame", FRAMES)
def test_heatmap_is_the_gaussian_of_the_distance_in_cells(frame):
    targets = encode_dense(persons_at([[[50.0, 70.0], [90.0, 70.0]]], frame), CELLS, TargetConfig())
    shift = 1.5 if frame == "consistent" else 0.0
    for channel, (x, y), sigma in ((0, (50.0, 70.0), 2.0), (1, (90.0, 70.0), 2.0), (2, (70.0, 70.0), 4.0)):
        for row, column in ((17, 12), (18, 14), (16, 20)):
            distance = ((column - (x - shift) / 4) ** 2 + (row - (y - shift) / 4) ** 2) ** 0.5
            expected = np.exp(-(distance**2) / (2 * sigma**2))
            inside = distance < 3 * sigma
            assert not inside or targets.heatmaps[channel, row, column] == pytest.approx(expected, abs=1e-6)


def test_keypoints_off_the_map_leave_no_trace_in_the_heatmaps():
    targets = encode_dense(persons_at([[[-9.0, 70.0], [170.0, 70.0]]], "published"), CELLS, TargetConfig())
    assert targets.heatmaps[:2].max() == 0
    assert targets.heatmaps[2].max() > 0.9  # the center between them is on the map


def test_unlabelled_keypoints_are_not_encoded():
    people = [[[50.0, 70.0, 0.0], [90.0, 70.0, 2.0]]]
    targets = encode_dense(persons_at(people, "consistent"), CELLS, TargetConfig())
    assert targets.heatmaps[0].max() == 0
    assert not targets.offset_weights[:2].any()
    assert targets.offset_weights[2:].any()


def test_offsets_weigh_by_the_diagonal_of_the_labelled_keypoints():
    """A box of 30 by 40 net px has the diagonal 50; of two keypoints, a square of the person's box stands for it."""
    whole = [[20.0, 30.0, 2.0], [50.0, 30.0, 2.0], [20.0, 70.0, 1.0], [150.0, 150.0, 0.0]]
    config = TargetConfig(offset_weight="inverse_diagonal")
    for points, expected in ((whole, 1 / 50), ([[a / 10 for a in p[:2]] + [2] for p in whole[:3]], 1 / 16)):
        weights = encode_dense(persons_at([points], "consistent"), CELLS, config).offset_weights
        assert weights.max() == pytest.approx(expected, rel=1e-5)
    two = persons_at([[[20.0, 30.0, 2.0], [60.0, 40.0, 2.0]]], "consistent")  # in a box of 40 by 10
    weights = encode_dense(two, CELLS, config).offset_weights
    assert weights.max() == pytest.approx(1 / (20 * np.sqrt(2)), rel=1e-5)


def test_background_weighs_less_than_the_surroundings_of_keypoints():
    targets = encode_dense(persons_at([[[20.0, 20.0], [24.0, 24.0]]], "published"), CELLS, TargetConfig())
    assert targets.heatmap_weights[0, 5, 5] == 1
    assert targets.heatmap_weights[0, 39, 39] == pytest.approx(0.1)


@pytest.mark.parametrize("blanks", [(), (Blank(np.array([0, 0, 39, 39], np.float32), 1),)], ids=["none", "channel 1"])
def test_windows_may_count_for_their_own_channel_alone(blanks):
    """A keypoint at cell (5, 5) reaches 3 sigma and a cell each way in its own channel, and nowhere in the other."""
    one = persons_at([[[21.5, 21.5, 2], [150.0, 150.0, 0]]], "consistent")
    config = TargetConfig(heatmap_windows="channel")
    weights = encode_dense(one, CELLS, config, blanks).heatmap_weights
    rows, columns = np.mgrid[:40, :40]
    near = np.maximum(np.abs(rows - 5), np.abs(columns - 5)) <= 3 * 2 + 1
    np.testing.assert_allclose(weights[0], np.where(near, 1, 0.1))
    np.testing.assert_allclose(weights[1], 0 if blanks else 0.1)


def brute_squares(persons, config, size):
    """The published overlap rule, cell by cell."""
    count = persons.keypoints.shape[1]
    offsets, weights = np.zeros((count, 2, size, size)), np.zeros((count, 2, size, size))
    owner = np.zeros((size, size))
    for keypoints, center, area, (cx, cy) in zip(
        persons.keypoints, persons.centers[:, 0], persons.areas, persons.center_cells[:, 0], strict=True
    ):
        if center[2] <= 0 or not (0 <= cx < size and 0 <= cy < size):
            continue
        for k, (x, y, v) in enumerate(keypoints):
            if v <= 0 or not (0 <= x < size and 0 <= y < size):
                continue
            for row in range(max(0, cy - 4), min(size, cy + 4)):
                for column in range(max(0, cx - 4), min(size, cx + 4)):
                    if offsets[k, :, row, column].any() and owner[row, column] < area:
                        continue
                    offsets[k, :, row, column] = column - x, row - y
                    weights[k, :, row, column] = 1 / np.sqrt(area)
                    owner[row, column] = area
    shape = (2 * count, size, size)
    return offsets.reshape(shape), weights.reshape(shape)


@pytest.mark.parametrize("seed", range(8))
def test_square_windows_follow_the_published_overlap_rule(seed):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-2, 22, (4, 2))
    keypoints = np.concatenate(
        [centers[:, None] + rng.normal(0, 4, (4, 5, 2)), rng.integers(0, 3, (4, 5, 1))], axis=2
    ).astype(np.float32)
    persons = GridPersons(
        keypoints,
        np.concatenate([centers, rng.random((4, 1)) < 0.9], axis=1).astype(np.float32)[:, None],
        rng.uniform(100, 5000, 4).astype(np.float32),
        np.full(4, 5, np.float32),
        np.floor(centers).astype(np.int64)[:, None],
    )
    targets = encode_dense(persons, (20, 20), TargetConfig())
    offsets, weights = brute_squares(persons, TargetConfig(), 20)
    np.testing.assert_allclose(targets.offsets, offsets, atol=1e-5)
    np.testing.assert_allclose(targets.offset_weights, weights, rtol=1e-6)


def test_gaussian_windows_give_each_cell_to_the_nearest_center():
    people = [[[60.0, 60.0], [80.0, 100.0]], [[68.0, 60.0], [88.0, 100.0]]]
    persons = persons_at(people, "consistent")
    targets = encode_dense(persons, CELLS, GAUSSIAN)
    claimed = np.argwhere(targets.offset_weights[0] > 0)
    assert len(claimed) > 4
    for row, column in claimed:
        distances = np.hypot(column - persons.centers[:, 0, 0], row - persons.centers[:, 0, 1])
        owner = int(distances.argmin())
        assert targets.offsets[0, row, column] == pytest.approx(column - persons.keypoints[owner, 0, 0], abs=1e-5)


@pytest.mark.parametrize("config", [TargetConfig(), GAUSSIAN], ids=["square", "gaussian"])
def test_person_outside_the_map_claims_no_cell(config):
    targets = encode_dense(persons_at([[[-60.0, -60.0], [-40.0, -20.0]]], "consistent"), CELLS, config)
    assert not targets.offset_weights.any()
    assert not targets.heatmaps.any()


def test_no_persons_give_empty_targets():
    targets = encode_dense(persons_at(np.zeros((0, 17, 2)), "consistent"), CELLS, GAUSSIAN)
    assert targets.heatmaps.shape == (18, *CELLS)
    assert targets.offsets.shape == (34, *CELLS)
    assert not targets.heatmaps.any()
    assert not targets.offset_weights.any()
