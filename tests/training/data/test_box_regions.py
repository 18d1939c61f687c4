import numpy as np
import pytest

from posesdk_training.data.box_regions import box_without


def covered(rectangles, size=40):
    """(size, size) how many rectangles hold the middle of each px."""
    y, x = np.mgrid[:size, :size] + 0.5
    total = np.zeros((size, size), int)
    for x0, y0, x1, _, _, y1, *_ in rectangles:
        total += (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return total


@pytest.mark.parametrize("seed", range(12))
def test_rectangles_cover_each_px_outside_of_the_others_once(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(-5, 35, (seed % 6, 2))
    others = np.concatenate([low, low + rng.integers(1, 20, low.shape)], axis=1)
    box = [3, 4, 33, 37]
    y, x = np.mgrid[:40, :40] + 0.5
    expected = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
    for x0, y0, x1, y1 in others:
        expected &= ~((x > x0) & (x < x1) & (y > y0) & (y < y1))
    np.testing.assert_array_equal(covered(box_without(box, list(others))), expected)


def test_nothing_is_left_of_a_box_within_another():
    assert box_without([3, 4, 10, 12], [np.array([0, 0, 20, 20])]) == []


def test_box_alone_is_one_rectangle():
    assert box_without([1, 2, 8, 9], []) == [[1, 2, 8, 2, 8, 9, 1, 9]]
