import json

import cv2
import numpy as np
import pytest

from posesdk.decode import decode_center_offset
from posesdk.skeleton import COCO_17
from posesdk.spec import DecodeSpec, InputSpec, ModelSpec
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import SampleKey
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.targets import Blank, GridPersons, encode_dense
from posesdk_training.settings.samples import TargetConfig

SIDE = 160
CELLS = (40, 40)
SQUARE = TargetConfig()
GAUSSIAN = TargetConfig(keypoint_sigma_per_size=0.045, center_sigma_per_size=0.08, offset_window="gaussian")
BOTH_WINDOWS = pytest.mark.parametrize("config", [SQUARE, GAUSSIAN], ids=["square", "gaussian"])


def grid_persons(rng, number, *, count=5, spread=6.0):
    """Persons anywhere on the map; some have one center, some two, some keypoints no label."""
    middles = rng.uniform(4, 36, (number, 1, 2))
    keypoints = middles + rng.normal(0, spread, (number, count, 2))
    centers = middles + rng.normal(0, spread / 2, (number, 2, 2))
    return GridPersons(
        np.concatenate([keypoints, rng.integers(0, 3, (number, count, 1))], axis=2).astype(np.float32),
        np.concatenate([centers, rng.random((number, 2, 1)) < 0.8], axis=2).astype(np.float32),
        rng.uniform(100, 5000, number).astype(np.float32),
        rng.uniform(8, 25, number).astype(np.float32),
        np.floor(centers).astype(np.int64),
    )


def with_one_center(persons, center):
    one = slice(center, center + 1)
    return GridPersons(
        persons.keypoints, persons.centers[:, one], persons.areas, persons.sizes, persons.center_cells[:, one]
    )


@BOTH_WINDOWS
@pytest.mark.parametrize("seed", range(5))
def test_each_center_has_the_targets_that_it_has_alone(config, seed):
    persons = grid_persons(np.random.default_rng(seed), 4)
    both = encode_dense(persons, CELLS, config)
    head, body = (encode_dense(with_one_center(persons, q), CELLS, config) for q in (0, 1))
    np.testing.assert_array_equal(both.heatmaps, np.concatenate([head.heatmaps, body.heatmaps[5:]]))
    np.testing.assert_array_equal(both.offsets, np.concatenate([head.offsets, body.offsets]))
    np.testing.assert_array_equal(both.offset_weights, np.concatenate([head.offset_weights, body.offset_weights]))
    np.testing.assert_array_equal(both.heatmap_weights, np.maximum(head.heatmap_weights, body.heatmap_weights))
    assert both.offset_weights.any()


@BOTH_WINDOWS
def test_offsets_lead_from_cells_to_keypoints_by_center_keypoint_and_axis(config):
    keypoints = np.array([[[10.25, 8.5, 2], [14.0, 30.75, 2], [9.0, 20.0, 2]]], dtype=np.float32)
    centers = np.array([[[11.5, 9.0, 1], [12.0, 26.0, 1]]], dtype=np.float32)
    one = np.ones(1, np.float32)
    persons = GridPersons(keypoints, centers, 400 * one, 12 * one, np.floor(centers[..., :2]).astype(np.int64))
    found = encode_dense(persons, CELLS, config).offsets
    for q, (column, row) in enumerate(((11, 9), (12, 26))):
        for k in range(3):
            for axis, cell in enumerate((column, row)):
                assert found[(q * 3 + k) * 2 + axis, row, column] == cell - keypoints[0, k, axis]


@BOTH_WINDOWS
@pytest.mark.parametrize("seed", range(4))
def test_decoder_finds_each_person_from_both_centers(config, seed):
    rng = np.random.default_rng(seed)
    people = np.stack([rng.uniform(-14, 14, (17, 2)) + at for at in ((45, 60), (112, 95))])
    # (2 persons, 2 centers, 2)
    centers = np.stack([people[:, :5].mean(1), people[:, 5:].mean(1) + np.array([0, 12])], axis=1)
    ones = np.ones((2, 17, 1))
    persons = GridPersons(
        np.concatenate([(people - 1.5) / 4, 2 * ones], axis=2).astype(np.float32),
        np.concatenate([(centers - 1.5) / 4, ones[:, :2]], axis=2).astype(np.float32),
        np.full(2, 900, np.float32),
        np.full(2, 20, np.float32),
        np.floor(centers / 4).astype(np.int64),
    )
    targets = encode_dense(persons, CELLS, config)
    spec = ModelSpec(name="round-trip", centers="dual", decode=DecodeSpec(center_threshold=0.5))
    found = decode_center_offset(targets.heatmaps, targets.offsets, spec)
    assert len(found) == 4
    assert sorted(found.kinds.tolist()) == [0, 0, 1, 1]
    for keypoints, center, kind in zip(found.keypoints, found.centers, found.kinds, strict=True):
        person = int(np.linalg.norm(centers[:, kind] - center, axis=1).argmin())
        np.testing.assert_allclose(keypoints, people[person], atol=4e-4)  # 1e-4 cells


@pytest.mark.parametrize("seed", range(4))
def test_blank_cells_weigh_nothing_but_in_the_windows_of_their_channel(seed):
    rng = np.random.default_rng(seed)
    persons = grid_persons(rng, 2, spread=3.0)
    first, second = rng.uniform(-5, 30, (2, 2))
    blanks = (
        Blank(np.concatenate([first, first + 12]).astype(np.float32)),
        Blank(np.concatenate([second, second + 9]).astype(np.float32), 6),
    )
    plain = encode_dense(persons, CELLS, SQUARE)
    found = encode_dense(persons, CELLS, SQUARE, blanks)
    np.testing.assert_array_equal(found.heatmaps, plain.heatmaps)
    assert found.heatmap_weights.shape == (7, *CELLS)
    for channel in range(7):
        points = persons.keypoints[:, channel] if channel < 5 else persons.centers[:, channel - 5]
        sigma = 2 if channel < 5 else 4
        for row in range(40):
            for column in range(40):
                cell = np.array([column, row])
                in_blank = any(
                    (blank.box[:2] - 1 < cell).all() and (cell < blank.box[2:] + 1).all()
                    for blank in blanks
                    if blank.channel in (None, channel)
                )
                in_window = any(
                    v > 0
                    and 0 <= int(x) < 40
                    and 0 <= int(y) < 40
                    and min(x, y) > -1
                    and all(
                        np.floor(c - 3 * sigma - 1) <= u < np.ceil(c + 3 * sigma + 2)
                        for c, u in zip((x, y), cell, strict=True)
                    )
                    for x, y, v in points
                )
                expected = 0 if in_blank and not in_window else plain.heatmap_weights[0, row, column]
                assert found.heatmap_weights[channel, row, column] == expected


def annotation(number, labelled, *, corner):
    """A person of 60 by 90 px, its keypoints on a grid: the head in its upper rows, the legs in the lower ones."""
    places = np.stack([np.arange(17) % 3 * 25 + 5, np.arange(17) // 3 * 16 + 5], axis=1) + corner
    points = np.zeros((17, 3))
    for k, name in enumerate(COCO_17.keypoints):
        if name in labelled:
            points[k] = [*places[k], 2]
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": points.ravel().tolist(),
        "area": 5400.0,
        "bbox": [*corner, 60.0, 90.0],
    }


@pytest.fixture
def sample(tmp_path):
    """The sample of one photo, 160 px a side, unchanged; persons as (labelled names, corner)."""

    def made(*persons, entry=None, flip=False, **targets):
        cv2.imwrite(str(tmp_path / "1.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
        tree = {
            "images": [{"id": 1, "file_name": "1.png"}],
            "categories": [],
            "annotations": [annotation(n, labelled, corner=corner) for n, (labelled, corner) in enumerate(persons, 1)],
        }
        (tmp_path / "truth.json").write_text(json.dumps(tree))
        source = {"name": "set", "annotations": tmp_path / "truth.json", "images": tmp_path} | (entry or {})
        config = TrainConfig.model_validate(
            {
                "name": "test",
                "model": ModelSpec(name="tiny", centers="dual", input=InputSpec(multiple=32)),
                "data": {"sets": [source]},
                "targets": {"background_weight": 1.0} | targets,
                "augment": {
                    "crop": {"kind": "image", "scale": [1.0, 1.0], "shift": 0.0},
                    "rotation": 0,
                    "flip_probability": float(flip),
                },
                "phases": [{"mixture": {"set": 1.0}, "sizes": {SIDE: 1.0}}],
                "steps": 1,
            }
        )
        return KeypointDataset(config)[SampleKey(0, SIDE, 0)]

    return made


ALL = COCO_17.keypoints
HEADLESS = ALL[5:]
FACE = ALL[:5]


def cells_of(labelled, corner):
    """(n, 2) labelled keypoints of an annotation on the grid."""
    points = np.array(annotation(1, labelled, corner=corner)["keypoints"]).reshape(17, 3)
    return (points[points[:, 2] > 0, :2] - 1.5) / 4


def test_sample_has_a_heatmap_and_offsets_for_each_center(sample):
    found = sample((ALL, (30.0, 20.0)))
    assert found["heatmaps"].shape == (19, *CELLS)
    assert found["offsets"].shape == found["offset_weights"].shape == (68, *CELLS)
    assert found["heatmap_weights"].shape == (1, *CELLS)
    points = cells_of(ALL, (30.0, 20.0))
    head, body = points[:5].mean(0), (points[[5, 6]].mean(0) + points[[11, 12]].mean(0)) / 2
    for channel, center in ((17, head), (18, body)):
        row, column = np.unravel_index(found["heatmaps"][channel].argmax(), CELLS)
        assert np.abs(center - (column, row)).max() <= 0.5


def test_flipped_sample_has_its_centers_mirrored_on_the_map(sample):
    plain, flipped = (sample((ALL, (33.0, 21.0)), flip=flip) for flip in (False, True))
    np.testing.assert_allclose(flipped["heatmaps"][17:], plain["heatmaps"][17:, :, ::-1], atol=1e-3)
    assert plain["heatmaps"][17:].max() > 0.9


def test_person_without_labelled_keypoints_has_no_center(sample):
    found = sample(((), (30.0, 20.0)), min_center_area=0)
    assert not found["heatmaps"].any()
    assert not found["offset_weights"].any()
    assert not found["heatmap_weights"][:, 10:25, 10:20].any()  # a region that is not looked at


def test_person_below_the_least_area_has_no_center(sample):
    found = sample((ALL, (30.0, 20.0)), min_center_area=5401.0)
    assert not found["heatmaps"][17:].any()
    assert not found["offset_weights"].any()
    assert found["heatmaps"][:17].any()


def test_unknown_head_is_no_negative_where_the_person_is(sample):
    found = sample((HEADLESS, (30.0, 20.0)))
    weights = found["heatmap_weights"]
    assert weights.shape == (19, *CELLS)
    assert not found["heatmaps"][17].any()
    points = cells_of(HEADLESS, (30.0, 20.0))
    left, top = np.floor(points.min(0)).astype(int)
    right, bottom = np.ceil(points.max(0)).astype(int)
    expected = np.ones(CELLS)
    expected[top : bottom + 1, left : right + 1] = 0
    np.testing.assert_array_equal(weights[17], expected)
    assert weights[:17].all()
    assert weights[18].all()
    assert found["offset_weights"][34:].any()  # from the body
    assert not found["offset_weights"][:34].any()


def test_head_of_another_person_is_learned_where_one_is_unknown(sample):
    found = sample((HEADLESS, (30.0, 20.0)), (FACE, (40.0, 70.0)), center_sigma=1.0)
    weights = found["heatmap_weights"][17]
    column, row = np.round(cells_of(FACE, (40.0, 70.0)).mean(0)).astype(int)
    assert weights[row - 3 : row + 4, column - 3 : column + 4].all()
    (left, top), (right, bottom) = (
        limit(cells_of(HEADLESS, (30.0, 20.0)), axis=0).astype(int) for limit in (np.min, np.max)
    )
    assert top + 4 < row < bottom  # one head lies where the other could be
    assert not weights[top + 1 : row - 5, left + 1 : right].any()


def test_strict_policy_leaves_bodies_without_hips_unknown(sample):
    labelled = (*FACE, "left_shoulder", "right_shoulder")
    lax, strict = (sample((labelled, (30.0, 20.0)), center_policy=policy) for policy in ("fallback", "strict"))
    assert lax["heatmaps"][18].max() > 0.9
    assert lax["heatmap_weights"].all()
    assert not strict["heatmaps"][18].any()
    assert not strict["heatmap_weights"][18].all()


def test_head_is_not_looked_at_in_a_set_that_labels_no_face(sample):
    found = sample((ALL, (30.0, 20.0)), entry={"annotated_keypoints": HEADLESS})
    weights = found["heatmap_weights"]
    assert not weights[:5].any()
    assert not weights[17].any()
    assert weights[5:17].all()
    assert weights[18].all()
