import numpy as np
import pytest

from posesdk.below import Below, cells_below
from posesdk.patches import Patches, blocks_of, cut_patches
from posesdk.spec import AdaptationSpec
from posesdk.windows import windows_above

MAPS, HEIGHT, WIDTH = 3, 24, 30
FRAMES = ("published", "consistent")
SIGMAS = (3.0, 12.0, 16.0, None)
"""The first one leaves nothing of the corners of a window."""


def _adaptation(size: int, sigma: float | None) -> AdaptationSpec:
    return AdaptationSpec(local_size=3, global_size=size, reweigh_sigma=sigma)


def _below(rng: np.random.Generator, maps: np.ndarray, size: int, count: int) -> Below:
    """Windows all over a picture, as far as 60 px beyond it, in part at whole pixels or just before."""
    points = rng.uniform(-60, [4 * WIDTH + 60, 4 * HEIGHT + 60], (count, 2)).astype(np.float32)
    points[::3] = np.floor(points[::3])
    points[1::3] = np.nextafter(np.floor(points[1::3]), np.float32(-1e9))
    return cells_below(points, rng.integers(0, MAPS, count), maps, size)


def _maps(rng: np.random.Generator, kind: str) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    smooth = [
        np.exp(-((xs - 9) ** 2 + (ys - 8) ** 2) / s**2) + np.exp(-((xs - 22) ** 2 + ys**2) / 9) for s in (2, 4, 6)
    ]
    values = {
        "noise": rng.uniform(0, 1, (MAPS, HEIGHT, WIDTH)),
        "both signs": rng.normal(0, 1, (MAPS, HEIGHT, WIDTH)),
        "smooth": np.stack(smooth),
        "rising": np.stack([np.exp(xs / 4), np.exp(-ys / 4), 1.0 + xs + ys]),
        "flat": np.ones((MAPS, HEIGHT, WIDTH)),
    }
    return values[kind].astype(np.float32)


def _beside(patches: Patches, windows: np.ndarray) -> np.ndarray:
    """The windows (P, a, a), 0 where the patches are."""
    side = len(patches.pixels)
    beside = windows.copy()
    for window, (left, top) in zip(beside, patches.first.T, strict=True):
        window[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    return beside


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("size", "blocks"), [(33, 4), (33, 3), (35, 6), (97, 9)])
def test_patches_are_cut_from_the_windows(size: int, blocks: int, sigma: float | None, frame: str) -> None:
    rng = np.random.default_rng(size + blocks)
    adaptation = _adaptation(size, sigma)
    for kind in ("noise", "both signs", "smooth"):
        below = _below(rng, _maps(rng, kind), size, 60)
        patches = cut_patches(below, adaptation, frame, blocks)
        windows = windows_above(below, adaptation, frame)
        side = 4 * blocks + 1
        padded = np.pad(windows, ((0, 0), (side, side), (side, side)))
        valid = np.pad(np.ones((size, size)), side)
        for index, (left, top) in enumerate(patches.first.T + side):
            part = np.s_[top : top + side, left : left + side]
            np.testing.assert_allclose(patches.pixels[..., index], padded[index][part], atol=3e-5)
            np.testing.assert_array_equal(
                np.outer(patches.inside[1, :, index], patches.inside[0, :, index]), valid[part]
            )


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("kind", ["noise", "both signs", "smooth", "rising", "flat"])
def test_no_pixel_beside_a_patch_is_above_the_rest(kind: str, sigma: float | None, frame: str) -> None:
    rng = np.random.default_rng(1)
    for size, blocks in ((33, 4), (35, 5), (61, 7)):
        adaptation, below = _adaptation(size, sigma), _below(rng, _maps(rng, kind), size, 200)
        patches = cut_patches(below, adaptation, frame, blocks)
        most = _beside(patches, windows_above(below, adaptation, frame)).max(axis=(1, 2))
        assert (most <= patches.rest * 1.00001).all()


def test_the_rest_of_smooth_maps_is_nearly_what_is_there() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, [4 * WIDTH, 4 * HEIGHT], (200, 2)).astype(np.float32)
    adaptation, below = _adaptation(33, 16.0), cells_below(points, np.full(200, 2), _maps(rng, "smooth"), 33)
    patches = cut_patches(below, adaptation, "consistent", 4)
    most = _beside(patches, windows_above(below, adaptation, "consistent")).max(axis=(1, 2))
    seen = most > 0.1
    assert seen.sum() > 50
    assert np.median(patches.rest[seen] / most[seen]) < 1.35


def test_the_largest_pixel_is_in_the_middle_of_its_patch() -> None:
    maps = np.zeros((1, HEIGHT, WIDTH), np.float32)
    maps[0, 10:12, 14:16] = 1  # largest from 4 * 14 + 1.5 to 4 * 15 + 1.5
    rng = np.random.default_rng(3)
    points = rng.uniform([52, 36], [66, 50], (50, 2)).astype(np.float32)
    below = cells_below(points, np.zeros(50, np.intp), maps, 49)
    for blocks in (4, 5):
        patches = cut_patches(below, _adaptation(49, None), "consistent", blocks)
        flat = patches.pixels.reshape(-1, 50)
        assert (flat.max(axis=0) > 0.99).all()
        ys, xs = np.divmod(flat.argmax(axis=0), 4 * blocks + 1)
        assert (abs(np.stack([ys, xs]) - 2 * blocks) <= 5).all()


def test_windows_that_are_no_larger_than_a_patch_have_none() -> None:
    assert blocks_of(_adaptation(33, 16.0), 15) == 4
    assert blocks_of(_adaptation(97, 16.0), 33) == 8
    assert blocks_of(_adaptation(97, 16.0), 34) == 9
    assert blocks_of(_adaptation(9, 16.0), 15) is None
