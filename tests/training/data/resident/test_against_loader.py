"""Resident batches against the samples of the CPU loader, for the same photos and crops."""

import json

import numpy as np
import pytest

from posesdk.skeleton import COCO_17
from posesdk.spec import ModelSpec
from posesdk_training.data import dataset as loader
from posesdk_training.data.batches import SampleKey, collate
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.resident.placement import crops_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

SAMPLES = 16
HALF = {"rtol": 1e-3, "atol": 1e-4}
"""The loader keeps targets in half precision, whose steps are up to 1e-3 of the value."""


@pytest.fixture
def both(open_batches, monkeypatch):
    """A batch of the loader and the resident one of the same crops."""

    def make(config, size=128):
        resident = open_batches(config)
        photos = {}
        for entry in config.data.sets:
            for record in load_keypoint_set(entry, config.model.skeleton).images:
                photos[tuple(person.keypoints.tobytes() for person in record.persons)] = len(photos)
        drawn, sample_placement = [], loader.sample_placement

        def noted(rng, image_size, persons, **settings):
            placement = sample_placement(rng, image_size, persons, **settings)
            drawn.append((photos[tuple(person.keypoints.tobytes() for person in persons)], placement))
            return placement

        monkeypatch.setattr(loader, "sample_placement", noted)
        dataset = KeypointDataset(config)
        batch = collate([dataset[SampleKey(number, size, 0)] for number in range(SAMPLES)])
        assert len({photo for photo, _ in drawn}) > 1
        assert len({placement.flip for _, placement in drawn}) == 2
        numbers = np.array([photo for photo, _ in drawn])
        return batch, resident.make(crops_of(numbers, [placement for _, placement in drawn]), None)

    return make


def pixel_error(expected, given):
    return np.abs(expected.images.numpy().astype(float) - given.images.numpy()).mean(axis=(1, 2, 3))


TARGETS = {
    "recipe": {},
    "background": {"background_weight": 0.1},
    "all labelled keypoints": {"center_from_visible": False, "center_keypoints": ()},
    "fixed sigmas": {"keypoint_sigma_per_size": None, "center_sigma_per_size": None},
    "sizes by the longer side": {"size_measure": "long_side"},
    "area": {"offset_weight": "area"},
    "square root of the area": {"offset_weight": "inverse_sqrt_area"},
    "tall persons": {"min_center_area": 4000.0},
}


@pytest.mark.parametrize("changes", TARGETS.values(), ids=TARGETS)
def test_targets_are_those_of_the_loader(make_config, both, changes):
    base = make_config()
    config = base.model_copy(update={"targets": base.targets.model_copy(update=changes)})
    expected, given = both(config)
    np.testing.assert_allclose(given.heatmaps, expected.heatmaps, **HALF)
    np.testing.assert_allclose(given.offset_weights, expected.offset_weights, rtol=1e-4)
    looked_at = expected.offset_weights > 0  # elsewhere the loader leaves what a former owner of the cell had
    assert looked_at.sum() > 1000
    np.testing.assert_allclose(given.offsets[looked_at], expected.offsets[looked_at], **HALF)


DUAL = ModelSpec(name="tiny", centers="dual")


def with_heads_missing(config):
    """Of every other person nobody labelled the face."""
    (entry,) = config.data.sets
    tree = json.loads(entry.annotations.read_text())
    for number, annotation in enumerate(tree["annotations"]):
        if number % 2:
            annotation["keypoints"][2:15:3] = [0] * 5
    entry.annotations.write_text(json.dumps(tree))
    return config


@pytest.mark.parametrize("policy", ["fallback", "strict"])
def test_targets_of_two_centers_are_those_of_the_loader(make_config, both, policy):
    config = with_heads_missing(make_config(model=DUAL))
    targets = config.targets.model_copy(update={"center_policy": policy})
    expected, given = both(config.model_copy(update={"targets": targets}))
    assert given.heatmaps.shape == (SAMPLES, 19, 32, 32)
    np.testing.assert_allclose(given.heatmaps, expected.heatmaps, **HALF)
    np.testing.assert_allclose(given.offset_weights, expected.offset_weights, rtol=1e-4)
    looked_at = expected.offset_weights > 0
    np.testing.assert_allclose(given.offsets[looked_at], expected.offsets[looked_at], **HALF)
    wanted, got = expected.heatmap_weights.numpy(), given.heatmap_weights.numpy()
    assert wanted.shape == got.shape
    alike = wanted[:, 0] == got[:, 0]  # but at the borders of regions, see below
    assert alike.mean() > 0.97
    for center in (17, 18):
        np.testing.assert_array_equal(got[:, center][alike], wanted[:, center][alike])
    assert (wanted[:, 17] != wanted[:, 0]).mean() > 0.02  # unknown heads


def test_heatmap_weights_differ_at_the_borders_of_regions_alone(make_config, both):
    expected, given = both(make_config())
    assert given.heatmap_weights.shape == expected.heatmap_weights.shape
    wanted, got = expected.heatmap_weights.numpy()[:, 0], given.heatmap_weights.numpy()[:, 0]
    assert 0.02 < (wanted == 0).mean() < 0.9
    assert (wanted != got).mean() < 0.03
    for one, other in zip(wanted, got, strict=True):  # every difference touches a cell of the other kind
        padded = np.pad(one, 1, mode="edge")
        around = np.stack([padded[r : r + 32, c : c + 32] for r in range(3) for c in range(3)])
        assert (around.min(0) < around.max(0))[one != other].all()


@pytest.mark.parametrize("model", [ModelSpec(name="tiny"), DUAL], ids=["one center", "two centers"])
def test_sets_keep_their_keypoints_and_their_windows(make_config, both, model):
    limbs = {"annotated_keypoints": COCO_17.keypoints[5:], "supervised_window": 0.12}
    expected, given = both(make_config({"whole": {}, "limbs": limbs}, model=model))
    wanted, got = expected.heatmap_weights.numpy(), given.heatmap_weights.numpy()
    assert wanted.shape == got.shape == (SAMPLES, 17 + model.center_count, 32, 32)
    assert (wanted != got).mean() < 0.03
    assert ((wanted[:, :5] == 0).all(axis=(1, 2, 3)) == (got[:, :5] == 0).all(axis=(1, 2, 3))).all()


def test_persons_of_the_adaptation_are_those_of_the_loader(make_config, both):
    expected, given = both(make_config())
    assert sum(len(points) for points in expected.keypoints) > SAMPLES
    for wanted, points, wanted_areas, areas in zip(
        expected.keypoints, given.keypoints, expected.areas, given.areas, strict=True
    ):
        kept = (points[..., 2] > 0).any(1)  # the rest is padding
        np.testing.assert_allclose(points[kept], wanted, atol=1e-3)
        np.testing.assert_allclose(areas[kept], wanted_areas, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "border"), [(128, (0, 0, 0)), (128, (10, 120, 250)), (64, (0, 0, 0)), (256, (9, 9, 9))]
)
def test_pixels_are_those_of_the_loader(make_config, both, size, border):
    base = make_config(phases=[{"mixture": {"one": 1.0}, "sizes": {size: 1.0}}])
    config = base.model_copy(update={"augment": base.augment.model_copy(update={"border": border})})
    expected, given = both(config, size)
    assert given.images.dtype == expected.images.dtype
    assert expected.images.float().std() > 20
    assert pixel_error(expected, given).max() < 1.0


RANGES = {"8x": {"area_range": [0, 5000]}, "2x": {"area_range": [5000, None]}}


def among(**changes):
    """Three branches, those beside 4x with ranges of areas and more settings."""
    return ["4x", *({"name": name, **limits, **changes} for name, limits in RANGES.items())]


BRANCHES = {
    "defaults": ["8x", "4x", "2x"],
    "ranges": among(),
    "zoom": ["4x", {"name": "8x", "zoom": 2.0, **RANGES["8x"]}, {"name": "2x", "zoom": 0.5, **RANGES["2x"]}],
    "kernels": among(keypoint_sigma=1.2, center_sigma=5),
    "one stem": among(stem="4x"),
    "own cells": among(stem="4x", cells="own"),
}


@pytest.mark.parametrize("branches", BRANCHES.values(), ids=BRANCHES)
@pytest.mark.parametrize("model", [ModelSpec(name="tiny"), DUAL], ids=["one center", "two centers"])
def test_views_of_branches_are_those_of_the_loader(make_config, both, branches, model):
    base = make_config(branches=branches, model=model)
    config = base.model_copy(update={"augment": base.augment.model_copy(update={"border": (9, 120, 250)})})
    size = 160 if branches == BRANCHES["one stem"] else 128  # half of 160 has to be filled up
    expected, given = both(config, size)
    assert pixel_error(expected, given).max() < 1.0
    np.testing.assert_allclose(given.heatmaps, expected.heatmaps, **HALF)
    assert [view.branch for view in given.views] == [view.branch for view in expected.views]
    for wanted, view in zip(expected.views, given.views, strict=True):
        assert view.images.shape == wanted.images.shape
        assert view.images.dtype == wanted.images.dtype
        assert wanted.images.float().std() > 20
        assert pixel_error(wanted, view).max() < 1.0
        np.testing.assert_allclose(view.heatmaps, wanted.heatmaps, **HALF)
        np.testing.assert_allclose(view.offset_weights, wanted.offset_weights, rtol=1e-4)
        looked_at = wanted.offset_weights > 0
        assert looked_at.sum() > 1000
        np.testing.assert_allclose(view.offsets[looked_at], wanted.offsets[looked_at], **HALF)
        assert view.heatmap_weights.shape == wanted.heatmap_weights.shape
        assert (view.heatmap_weights != wanted.heatmap_weights).float().mean() < 0.03  # borders of regions, see above


@pytest.mark.parametrize("branches", [BRANCHES[name] for name in ("ranges", "zoom", "own cells")])
@pytest.mark.parametrize("model", [ModelSpec(name="tiny"), DUAL], ids=["one center", "two centers"])
def test_persons_out_of_range_are_blanked_as_by_the_loader(make_config, both, branches, model):
    """Of photos without masked regions, all weights."""
    config = without_regions(make_config(branches=branches, model=model))
    expected, given = both(config)
    for wanted, view in zip(expected.views, given.views, strict=True):
        weights = wanted.heatmap_weights.numpy()
        assert 0.02 < (weights == 0).mean() < 0.9
        assert (weights[:, 0] != weights[:, 1]).any()  # windows of persons who are learned
        np.testing.assert_array_equal(view.heatmap_weights.numpy(), weights)


def without_regions(config):
    (entry,) = config.data.sets
    tree = json.loads(entry.annotations.read_text())
    tree["annotations"] = [annotation for annotation in tree["annotations"] if annotation["id"] < 100]
    entry.annotations.write_text(json.dumps(tree))
    return config
