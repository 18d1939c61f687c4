import json

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils.data import DataLoader

from posesdk.spec import InputSpec, ModelSpec
from posesdk_training.config import TrainConfig
from posesdk_training.data import dataset
from posesdk_training.data.batches import SampleKey, StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.views import fields_of_view
from posesdk_training.settings.branches import BranchConfig
from posesdk_training.settings.samples import TargetConfig

SIZE = 128
CELLS = SIZE // 4
PHOTO = 256
ALL_BRANCHES = ("8x", "4x", "2x")
STRIDES = {"8x": 8, "4x": 4, "2x": 2}
EVERYBODY = [0.0, None]
DOT = np.array([141.0, 118.0])
"""Orig px; the nose of the person, and the only thing that is seen in the photo."""


def person(number, *, box, dot=None, labelled=range(17)):
    """All keypoints at places of their own within a box x, y, w, h; the nose at `dot`."""
    rng = np.random.default_rng(number)
    points = np.zeros((17, 3))
    for k in labelled:
        points[k] = [box[0] + rng.uniform(0.1, 0.9) * box[2], box[1] + rng.uniform(0.1, 0.9) * box[3], 2]
    if dot is not None:
        points[0] = [*dot, 2]
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": points.ravel().tolist(),
        "area": float(box[2] * box[3]),
        "bbox": list(box),
    }


@pytest.fixture
def make(tmp_path):
    """A configuration for one photo with a white dot, that is blurred so as to survive any resampling."""

    def made(persons, *, branches=ALL_BRANCHES, augment=None, photo=None, **changes):
        if photo is None:
            columns, rows = np.meshgrid(np.arange(PHOTO), np.arange(PHOTO))
            distance = (columns - DOT[0]) ** 2 + (rows - DOT[1]) ** 2
            photo = np.repeat(255 * np.exp(-distance / (2 * 5.0**2))[..., None], 3, axis=2).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "1.png"), photo)
        tree = {"images": [{"id": 1, "file_name": "1.png"}], "categories": [], "annotations": persons}
        (tmp_path / "truth.json").write_text(json.dumps(tree))
        source = {"name": "set", "annotations": tmp_path / "truth.json", "images": tmp_path}
        plain = {"crop": {"kind": "image", "scale": [1.0, 1.0], "shift": 0.0}, "rotation": 0, "flip_probability": 0}
        model = ModelSpec(name="tiny", centers="dual", input=InputSpec(multiple=32))
        return TrainConfig.model_validate(
            {
                "name": "test",
                "model": model,
                "data": {"sets": [source]},
                "branches": branches,
                "augment": plain | (augment or {}),
                "phases": [{"mixture": {"set": 1.0}, "sizes": {SIZE: 1.0}}],
                "steps": 4,
                "batch_size": 2,
            }
            | changes
        )

    return made


def views_of(config, number=0):
    """The branches' samples by name, 4x among them."""
    sample = KeypointDataset(config)[SampleKey(number, SIZE, 0)]
    return {view["branch"]: view for view in (sample, *sample.get("views", ()))}


def dot_place(view, stride):
    """(2,) cells of the bright dot's middle: pixel X of an input lies at cell (X - (stride - 1) / 2) / stride."""
    brightness = view["image"].astype(np.float64).sum(0)
    brightness[brightness < 30] = 0
    columns, rows = np.meshgrid(np.arange(brightness.shape[1]), np.arange(brightness.shape[0]))
    middle = np.array([(brightness * columns).sum(), (brightness * rows).sum()]) / brightness.sum()
    return (middle - (stride - 1) / 2) / stride


def nose_place(view):
    """(2,) cells of the nose as the offsets of the body's center give it: [body, nose, xy] are cell - nose."""
    taken = view["offset_weights"][34] > 0
    rows, columns = np.nonzero(taken)
    x, y = columns - view["offsets"][34][taken], rows - view["offsets"][35][taken]
    return np.array([x.mean(), y.mean()])


RANDOM = {"crop": {"kind": "image", "scale": [0.7, 1.1], "shift": 0.1}, "rotation": 30}
SEEN_BY_ALL = [{"name": name, "area_range": EVERYBODY} for name in ALL_BRANCHES]


@pytest.mark.parametrize("number", range(4))
def test_dot_lies_at_the_same_mirrored_cell_in_all_branches(make, number):
    """The flip is exact everywhere: x -> w - 1 - x on the map, and what is drawn in the photo goes along."""
    nobody_else = [person(1, box=[90, 80, 90, 90], dot=DOT)]
    plain, flipped = (
        views_of(make(nobody_else, branches=SEEN_BY_ALL, augment=RANDOM | {"flip_probability": flip}), number)
        for flip in (0, 1)
    )
    expected = nose_place(plain["4x"])
    for name, stride in STRIDES.items():
        assert plain[name]["image"].shape == (3, CELLS * stride, CELLS * stride)
        np.testing.assert_allclose(nose_place(plain[name]), expected, atol=0.01)  # of 16-bit offsets
        np.testing.assert_allclose(dot_place(plain[name], stride), expected, atol=0.03)
        mirrored = [CELLS - 1 - expected[0], expected[1]]
        np.testing.assert_allclose(nose_place(flipped[name]), mirrored, atol=0.01)
        np.testing.assert_allclose(dot_place(flipped[name], stride), mirrored, atol=0.03)


@pytest.mark.parametrize("number", range(4))
def test_inputs_of_the_deployed_stem_have_targets_at_their_own_cells(make, number):
    """Where they keep them: a cell is four px of the input then, whatever the input's resolution, flipped or not."""
    branches = ["4x", *({"name": name, "stem": "4x", "cells": "own"} for name in ("8x", "2x"))]
    for flip in (0, 1):
        augment = RANDOM | {"flip_probability": flip}
        views = views_of(make([person(1, box=[90, 80, 90, 90], dot=DOT)], branches=branches, augment=augment), number)
        deployed = nose_place(views["4x"])
        for name, scale in (("8x", 2), ("2x", 0.5)):
            side = round(scale * CELLS)
            assert views[name]["heatmaps"].shape == (19, side, side)
            assert views[name]["offset_weights"].shape == (68, side, side)
            at = nose_place(views[name])
            np.testing.assert_allclose(at, dot_place(views[name], 4), atol=0.05)
            np.testing.assert_allclose(at, scale * (deployed + 0.5) - 0.5, atol=0.02)


def test_own_cells_have_the_kernels_and_persons_of_scale_augmentation(make):
    """At two cells for one, a person's Gaussians are those that the 4x branch draws of a person of twice the size."""
    own = {"name": "8x", "stem": "4x", "cells": "own"}
    fine = BranchConfig.model_validate(own)
    assert fine.targets(TargetConfig()) == TargetConfig()
    assert (fine.weight, fine.area_range) == (1, (0, None))
    small, large = person(1, box=SMALL), person(1, box=[2 * side for side in SMALL])
    large["keypoints"] = [value * 2 if k % 3 < 2 else value for k, value in enumerate(small["keypoints"])]
    targets = {"keypoint_sigma_per_size": 0.04, "center_sigma_per_size": 0.08, "offset_weight": "inverse_diagonal"}
    view = views_of(make([small], branches=["4x", own], targets=targets))["8x"]
    drawn = views_of(make([large], branches=["4x"], targets=targets))["4x"]
    rows = columns = slice(0, CELLS)
    for name in ("heatmaps", "heatmap_weights", "offset_weights"):
        difference = view[name][..., rows, columns].astype(np.float32) - drawn[name]
        assert drawn[name].any()
        assert np.mean(np.abs(difference) > 0.05) < 0.003, name  # half a px that the two photos' frames lie apart


@pytest.mark.parametrize(("size", "filled"), [(128, 64), (96, 64)])
def test_inputs_of_the_deployed_stem_are_filled_up_to_what_it_takes(make, size, filled):
    photo = np.full((PHOTO, PHOTO, 3), 200, dtype=np.uint8)
    branches = ["4x", {"name": "2x", "stem": "4x"}]
    config = make([person(1, box=LARGE)], branches=branches, photo=photo, augment={"border": (10, 20, 30)})
    view = KeypointDataset(config)[SampleKey(0, size, 0)]["views"][0]
    shown = size // 2
    assert view["image"].shape == (3, filled, filled)
    assert (view["image"][:, :shown, :shown] == 200).all()
    assert view["heatmaps"].shape == (19, size // 4, size // 4)
    for beyond in (view["image"][:, shown:], view["image"][:, :, shown:]):
        assert (beyond == np.array([30, 20, 10])[:, None, None]).all()


def test_zoomed_branch_sees_more_about_the_same_middle(make):
    zooms = {"8x": 2.0, "4x": 1.0, "2x": 0.5}
    branches = [{"name": name, "zoom": zoom, "area_range": EVERYBODY} for name, zoom in zooms.items()]
    augment = RANDOM | {"flip_probability": 1}
    views = views_of(make([person(1, box=[90, 80, 90, 90], dot=DOT)], branches=branches, augment=augment), 1)
    middle = (CELLS - 1) / 2
    at = nose_place(views["4x"]) - middle
    for name, zoom in zooms.items():
        np.testing.assert_allclose(nose_place(views[name]), middle + at / zoom, atol=0.01)
        np.testing.assert_allclose(dot_place(views[name], STRIDES[name]), middle + at / zoom, atol=0.03)


@pytest.mark.parametrize("number", range(3))
def test_noise_and_colors_are_the_same_in_all_branches(make, number):
    photo = np.random.default_rng(0).integers(0, 256, (PHOTO, PHOTO, 3), dtype=np.uint8)
    augment = RANDOM | {"photometric": True}
    views = views_of(make([person(1, box=[90, 80, 90, 90])], augment=augment, photo=photo), number)
    fine = views["8x"]["image"].astype(np.float64)
    for name, factor in (("4x", 2), ("2x", 4)):
        side = fine.shape[1] // factor
        mean = fine.reshape(3, side, factor, side, factor).mean((2, 4))
        assert np.abs(views[name]["image"] - mean).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("number", range(4))
def test_zoomed_branches_have_the_colors_of_4x(make, number):
    photo = np.full((PHOTO, PHOTO, 3), (90, 120, 150), dtype=np.uint8)
    zooms = [{"name": "8x", "zoom": 0.8}, "4x", {"name": "2x", "zoom": 0.5}]
    augment = {"crop": {"kind": "image", "scale": [0.5, 0.5], "shift": 0.0}, "photometric": True}
    views = views_of(make([], branches=zooms, augment=augment, photo=photo), number)
    fine, deployed, coarse = (views[name]["image"].mean((1, 2)) for name in ALL_BRANCHES)
    np.testing.assert_allclose(fine, deployed, atol=1)
    np.testing.assert_allclose(coarse, deployed, atol=1)


@pytest.mark.parametrize("branches", [["8x", "4x"], ["4x", "2x"], ["4x"]])
def test_blur_and_noise_are_told_how_fine_the_image_is(make, monkeypatch, branches):
    asked = []

    def noted(rng, image, resolution):
        asked.append((len(image), resolution))
        return image

    monkeypatch.setattr(dataset, "jitter_colors", noted)
    views_of(make([person(1, box=SMALL)], branches=branches, augment={"photometric": True}))
    assert asked == [(2 * SIZE, 2) if "8x" in branches else (SIZE, 1)]


def test_branches_change_nothing_but_the_sharpness_of_4x(make):
    persons = [person(1, box=[90, 80, 90, 90], dot=DOT)]
    alone, among = (
        views_of(make(persons, branches=branches, augment=RANDOM))["4x"] for branches in (("4x",), ALL_BRANCHES)
    )
    for name in ("heatmaps", "heatmap_weights", "offsets", "offset_weights", "keypoints", "areas"):
        np.testing.assert_array_equal(alone[name], among[name])
    difference = np.abs(alone["image"].astype(int) - among["image"])
    assert difference.mean() < 0.5


def test_run_with_one_branch_has_no_other_views(make):
    default = make([person(1, box=[90, 80, 90, 90])], branches=[BranchConfig(name="4x")])
    assert default.branches == TrainConfig.model_fields["branches"].default
    sample = KeypointDataset(default)[SampleKey(0, SIZE, 0)]
    assert "views" not in sample
    assert collate([sample]).views == ()


@pytest.mark.parametrize(
    ("name", "keypoint", "center", "radius"),
    [("8x", 1.5, 3, 3), ("4x", 2, 4, 4), ("2x", 3, 6, 6)],
)
def test_kernels_of_the_branches(name, keypoint, center, radius):
    targets = BranchConfig(name=name).targets(TargetConfig())
    assert (targets.keypoint_sigma, targets.center_sigma, targets.offset_radius) == (keypoint, center, radius)


def test_kernels_by_the_size_of_persons_are_scaled_alike():
    base = TargetConfig(keypoint_sigma_per_size=0.04, center_sigma_per_size=0.08, keypoint_sigma_range=(1, 2))
    wide, given = (
        branch.targets(base) for branch in (BranchConfig(name="2x"), BranchConfig(name="2x", keypoint_sigma=4))
    )
    assert wide.keypoint_sigma_per_size == pytest.approx(0.06)
    assert wide.center_sigma_per_size == pytest.approx(0.12)
    assert wide.keypoint_sigma_range == pytest.approx((1.5, 3))
    assert given.keypoint_sigma_per_size == pytest.approx(0.08)
    assert given.center_sigma_per_size == pytest.approx(0.12)
    assert BranchConfig(name="4x").targets(base) == base


@pytest.mark.parametrize(("box", "sigma"), [([20, 30, 60, 120], 2 * 60 / 64), ([10, 10, 230, 90], 2 * 115 / 64)])
def test_sigma_can_be_that_of_the_longer_side_in_all_branches(make, box, sigma):
    """HigherHRNet's rule (for 64 px in place of its 256), against one sigma for everybody; sides halve in the sample.

    All branches draw it alike where they have the kernels of `targets`, and learn everybody without a range of areas.
    """
    alike = {"keypoint_sigma": 2, "center_sigma": 4, "offset_radius": 4, "area_range": [0, None]}
    branches = ["4x", {"name": "8x", **alike}, {"name": "2x", **alike}]
    rule = {"size_measure": "long_side", "keypoint_sigma_per_size": 1 / 8, "keypoint_sigma_range": [1, 4]}
    views = views_of(make([person(1, box=box)], branches=branches, targets=rule))
    fixed = views_of(make([person(1, box=box)], branches=["4x"], targets={"keypoint_sigma": sigma}))["4x"]
    for view in views.values():
        np.testing.assert_allclose(view["heatmaps"].view(np.float16), fixed["heatmaps"].view(np.float16), atol=2e-3)


def test_sigma_of_the_longer_side_keeps_to_its_range(make):
    rule = {"size_measure": "long_side", "keypoint_sigma_per_size": 1 / 32, "keypoint_sigma_range": [1, 4]}
    for box, factor, sigma in ((SMALL, 1, 1), (LARGE, 1, 1), (LARGE, 20, 4)):
        targets = rule | {"keypoint_sigma_per_size": factor / 32}
        one, other = (
            views_of(make([person(1, box=box)], branches=["4x"], targets=changes))["4x"]["heatmaps"]
            for changes in (targets, {"keypoint_sigma": sigma})
        )
        np.testing.assert_array_equal(one, other)


def test_weights_and_areas_of_the_branches():
    fine, deployed, coarse = (BranchConfig.model_validate(name) for name in ALL_BRANCHES)
    assert (fine.weight, deployed.weight, coarse.weight) == (0.5, 1, 0.5)
    areas = np.array([63, 64, 65, 127, 128, 129], dtype=np.float32) ** 2
    assert fine.supervises(areas).tolist() == [True] * 5 + [False]
    assert deployed.supervises(areas).all()
    assert coarse.supervises(areas).tolist() == [False] * 2 + [True] * 4


SMALL, LARGE = [20, 20, 40, 40], [120, 100, 120, 120]
"""Boxes of persons in the photo; in the 4x view their areas are 20^2 and 60^2."""


def cells_of(box):
    """First and last (exclusive) columns and rows that certainly lie in the box of a person."""
    corners = (np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]]) * SIZE / PHOTO - 1.5) / 4
    return (*np.ceil(corners[:2]).astype(int), *np.floor(corners[2:]).astype(int) + 1)


@pytest.mark.parametrize(("name", "learned", "ignored"), [("8x", SMALL, LARGE), ("2x", LARGE, SMALL)])
def test_persons_out_of_range_are_ignored_and_no_negatives(make, name, learned, ignored):
    areas = {"8x": [0.0, 40.0**2], "2x": [40.0**2, None]}
    branches = ["4x", *({"name": branch, "area_range": limits} for branch, limits in areas.items())]
    persons = [person(1, box=SMALL), person(2, box=LARGE)]
    targets = {"keypoint_sigma": 0.7, "center_sigma": 1.0, "background_weight": 1.0}
    views = views_of(make(persons, branches=branches, targets=targets))
    view = views[name]
    left, top, right, bottom = cells_of(ignored)
    assert not view["heatmap_weights"][:, top:bottom, left:right].any()
    assert not view["heatmaps"][:, top:bottom, left:right].any()
    left, top, right, bottom = cells_of(learned)
    assert (view["heatmap_weights"][:, top:bottom, left:right] == 1).all()
    alone = views_of(make([persons[learned is LARGE]], branches=branches, targets=targets))[name]
    for maps in ("heatmaps", "offsets", "offset_weights"):
        np.testing.assert_array_equal(view[maps], alone[maps])
    assert views["4x"]["heatmap_weights"].all()


@pytest.mark.parametrize(("zoom", "limits", "learned"), [(2.0, [50.0**2, None], True), (2.0, [0.0, 50.0**2], False)])
def test_persons_are_measured_in_the_4x_view_whatever_the_zoom(make, zoom, limits, learned):
    branches = ["4x", {"name": "8x", "area_range": limits, "zoom": zoom}]
    view = views_of(make([person(2, box=LARGE)], branches=branches))["8x"]
    assert bool(view["heatmaps"].any()) == learned


def test_keypoints_in_front_of_an_ignored_person_are_learned(make):
    """One small person in the box of a large one: its windows, and no others, are looked at."""
    inside, around = [60, 70, 30, 30], [40, 40, 200, 200]
    branches = ["4x", {"name": "8x", "area_range": [0.0, 40.0**2]}]
    targets = {"keypoint_sigma": 0.7, "center_sigma": 1.0, "background_weight": 1.0, "min_center_area": 0}
    persons = [person(1, box=inside, labelled=range(5, 17)), person(2, box=around)]
    view = views_of(make(persons, branches=branches, targets=targets))["8x"]
    left, top, right, bottom = cells_of(around)
    for channel in range(19):
        drawn = view["heatmaps"][channel] > 0
        weights = view["heatmap_weights"][channel]
        assert (weights[drawn] == 1).all()
        assert drawn.any() == (5 <= channel < 17 or channel == 18)
        rows, columns = np.mgrid[top:bottom, left:right].reshape(2, -1)
        far = np.ones(len(rows), dtype=bool)
        if drawn.any():
            row, column = np.unravel_index(view["heatmaps"][channel].argmax(), drawn.shape)
            far = np.maximum(np.abs(rows - row), np.abs(columns - column)) > 7
        assert far.any()
        assert not weights[rows[far], columns[far]].any()


def test_batches_hold_the_views_of_all_samples_through_loader_processes(make):
    config = make([person(1, box=SMALL), person(2, box=LARGE)], augment={"flip_probability": 0.5})
    batches = [
        list(
            DataLoader(
                KeypointDataset(config), batch_sampler=StepSampler(config), num_workers=workers, collate_fn=collate
            )
        )
        for workers in (0, 1)
    ]
    for here, there in zip(*batches, strict=True):
        assert [view.branch for view in here.views] == ["8x", "2x"]
        for one, two, side in zip(here.views, there.views, (2 * SIZE, SIZE // 2), strict=True):
            assert one.images.shape == (2, 3, side, side)
            assert one.images.dtype == torch.uint8
            assert one.heatmaps.shape == here.heatmaps.shape
            assert one.offsets.shape == one.offset_weights.shape == (2, 68, CELLS, CELLS)
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.heatmap_weights, two.heatmap_weights)


def test_views_move_to_a_device_with_their_batch(make):
    batch = collate([KeypointDataset(make([person(1, box=SMALL)]))[SampleKey(0, SIZE, 0)]])
    for view in batch.to(torch.device("meta")).views:
        tensors = [view.images, view.heatmaps, view.heatmap_weights, view.offsets, view.offset_weights]
        assert all(tensor.is_meta for tensor in tensors)
        assert view.branch in ("8x", "2x")


def test_branches_with_one_field_of_view_are_made_together():
    branches = [BranchConfig(name="8x", zoom=2), BranchConfig(name="4x"), BranchConfig(name="2x")]
    found = [[branch.name for branch in field] for field in fields_of_view(branches)]
    assert found == [["4x", "2x"], ["8x"]]


def test_branches_survive_being_written_down(make):
    config = make([person(1, box=SMALL)], branches=["8x", "4x", {"name": "2x", "zoom": 0.5}])
    assert TrainConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("branches", "changes", "message"),
    [
        (["8x", "2x"], {}, "the deployed 4x among them"),
        (["4x", "4x"], {}, "different ones"),
        (["4x", "16x"], {}, "'8x', '4x' or '2x'"),
        ([{"name": "4x", "zoom": 2}], {}, "its own zoom is 1"),
        (["4x", {"name": "2x", "area_range": [100, 10]}], {}, "area_range must rise"),
        (["4x", {"name": "2x", "cells": "own"}], {}, "set stem to 4x, or cells"),
        (["4x", {"name": "2x", "stem": "8x"}], {}, "'own' or '4x'"),
        (["4x", "2x"], {"model": ModelSpec(name="tiny", frame="published")}, "set model.frame to consistent"),
    ],
)
def test_branches_that_do_not_fit_are_refused(make, branches, changes, message):
    with pytest.raises(ValidationError, match=message):
        make([person(1, box=SMALL)], branches=branches, **changes)
