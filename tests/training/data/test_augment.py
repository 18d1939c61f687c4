import cv2
import numpy as np
import pytest

from posesdk.skeleton import COCO_17
from posesdk_training.data.augment import (
    Placement,
    jitter_colors,
    sample_placement,
    transform_boxes,
    transform_keypoints,
    warp_image,
)
from posesdk_training.data.coco import PersonRecord
from posesdk_training.settings.samples import AugmentConfig, CropConfig

FRAMES = ("published", "consistent")
SIZE = 128


def person(x0, y0, x1, y1):
    keypoints = np.tile(np.array([(x0 + x1) / 2, (y0 + y1) / 2, 2], np.float32), (17, 1))
    return PersonRecord(keypoints, np.array([x0, y0, x1, y1], np.float32), float((x1 - x0) * (y1 - y0)), False)


def spot(image):
    """Brightness-weighted mean position of an image, (x, y)."""
    weights = image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def config(kind, *, flip):
    crop = CropConfig(kind=kind, scale=(0.9, 1.3), shift=0.1, person_size=(0.3, 0.6))
    return AugmentConfig(crop=crop, rotation=40.0, flip_probability=float(flip))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", ["image", "person"])
@pytest.mark.parametrize("seed", range(3))
def test_painted_keypoint_lands_where_the_keypoint_is_moved(kind, flip, frame, seed):
    image = np.zeros((200, 260, 3), np.uint8)
    x, y = 130, 100
    cv2.circle(image, (x, y), 3, (255, 255, 255), -1)
    placement = sample_placement(
        np.random.default_rng(seed), (200, 260), (person(90, 60, 170, 140),),
        size=SIZE, config=config(kind, flip=flip), frame=frame,
    )  # fmt: skip
    moved = transform_keypoints(np.full((1, 17, 3), (x, y, 2), np.float32), placement, COCO_17.flip_indices)
    warped = warp_image(image, placement, (0, 0, 0))
    assert placement.flip == flip
    assert warped.shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(spot(warped), moved[0, 0, :2], atol=0.1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 25.0])
@pytest.mark.parametrize("scale", [0.07, 0.16, 0.31, 0.55])
def test_strong_reduction_keeps_the_place_and_averages_the_pixels(scale, angle, flip):
    """Fine noise of mean 128 stays near 128 and a bright disc lands where its center is moved."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2, (900, 1101, 3), dtype=np.uint8) * 100
    point = np.array([520.0, 430.0])
    disc = np.zeros_like(image)
    cv2.circle(disc, (520, 430), int(6 / scale), (255, 255, 255), -1)
    radians = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    matrix = np.concatenate([linear, (60 - linear @ point)[:, None]], axis=1)  # the point goes to (60, 60)
    placement = Placement(matrix, SIZE, flip)
    expected = (SIZE - 1 - 60.0 if flip else 60.0, 60.0)
    np.testing.assert_allclose(spot(warp_image(disc, placement, (0, 0, 0))), expected, atol=0.12)
    if scale < 0.2:
        middle = warp_image(image, placement, (0, 0, 0))[54:66, 54:66]
        assert abs(middle.mean() - 50) < 3
        assert middle.std() < 20  # single source pixels would give 50


def test_flip_swaps_left_and_right_and_mirrors_pixel_centers():
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 5] = (0, 10, 2)  # the left shoulder in the first column
    placement = Placement(np.array([[1.0, 0, 0], [0, 1.0, 0]]), SIZE, flip=True)
    moved = transform_keypoints(keypoints, placement, COCO_17.flip_indices)
    np.testing.assert_allclose(moved[0, 6], (SIZE - 1, 10, 2))
    assert moved[0, 5, 2] == 0


@pytest.mark.parametrize("frame", FRAMES)
def test_crop_without_augmentation_centers_the_photo(frame):
    """The consistent frame puts the middle of the photo in the middle of the crop, the published one w/2 on S/2."""
    crop = CropConfig(kind="image", scale=(1.0, 1.0), shift=0.0)
    augment = AugmentConfig(crop=crop, rotation=0, flip_probability=0.0)
    placement = sample_placement(np.random.default_rng(0), (256, 384), (), size=SIZE, config=augment, frame=frame)
    middle = np.array([383 / 2, 255 / 2]) if frame == "consistent" else np.array([192.0, 128.0])
    target = (SIZE - 1) / 2 if frame == "consistent" else SIZE / 2
    np.testing.assert_allclose(placement.matrix[:, :2] @ middle + placement.matrix[:, 2], target, atol=1e-9)
    assert placement.scale == pytest.approx(SIZE / 256)


@pytest.mark.parametrize("seed", range(10))
def test_person_crop_shows_the_person_at_the_asked_size(seed):
    crop = CropConfig(kind="person", focus=1.0, person_size=(0.3, 0.6), max_enlargement=10.0)
    augment = AugmentConfig(crop=crop, rotation=0, flip_probability=0.5)
    someone = person(300, 200, 420, 400)
    placement = sample_placement(
        np.random.default_rng(seed), (600, 800), (someone,), size=SIZE, config=augment, frame="consistent"
    )
    box = transform_boxes(someone.box[None], placement)[0]
    assert 0.3 * SIZE - 1 <= 0.8 * (box[3] - box[1]) <= 0.6 * SIZE + 1
    center = (box[:2] + box[2:]) / 2
    assert (center > 0).all()
    assert (center < SIZE).all()


def test_rotated_box_contains_the_rotated_corners():
    radians = np.deg2rad(30)
    linear = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    placement = Placement(np.concatenate([linear, [[50.0], [10.0]]], axis=1), SIZE, flip=False)
    box = transform_boxes(np.array([[10, 20, 30, 60]], np.float32), placement)[0]
    corners = np.array([[10, 20], [30, 20], [30, 60], [10, 60]]) @ linear.T + (50, 10)
    np.testing.assert_allclose(box, [*corners.min(0), *corners.max(0)], atol=1e-4)


def test_color_jitter_keeps_shape_and_type_and_follows_the_generator():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    first, second = (jitter_colors(np.random.default_rng(5), image) for _ in range(2))
    other = jitter_colors(np.random.default_rng(6), image)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def averaged(image):
    return image.reshape(96, 2, 96, 2, 3).mean((1, 3))


def test_finer_image_has_the_colors_and_the_noise_of_the_sample_once_averaged_down():
    """Noise is as strong, but another: more px are drawn."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(60, 190, (12, 12, 3), dtype=np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
    coarse[:, 48:] //= 2  # an edge, to be blurred
    flat = np.full((96, 96, 3), 128, np.uint8)
    fine, fine_flat = (image.repeat(2, axis=0).repeat(2, axis=1) for image in (coarse, flat))
    spreads, compared = [], 0
    for seed in range(120):
        one, one_flat = (jitter_colors(np.random.default_rng(seed), image) for image in (coarse, flat))
        two, two_flat = (averaged(jitter_colors(np.random.default_rng(seed), image, 2)) for image in (fine, fine_flat))
        if (spread := one_flat.std((0, 1)).mean()) > 0:
            spreads.append((spread, two_flat.std((0, 1)).mean()))
        else:
            compared += 1
            assert np.abs(one - two).max() < 12  # the edge of 60 and more is a little softer
    assert compared > 50
    assert len(spreads) > 10
    alone, shrunk = np.mean(spreads, axis=0)
    assert shrunk == pytest.approx(alone, rel=0.25)
