import numpy as np
import pytest

from posesdk.poses import Poses
from posesdk_training.report.cases import read_cases
from posesdk_training.report.drawing import FAULT, IGNORED, RIGHT, draw_found, draw_labelled, fit_poses, fit_side

GREY = np.full((100, 150, 3), 128, np.uint8)


def colours(picture):
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


@pytest.fixture
def cases(small):
    return read_cases(small.truth, small.folder, small.results, threshold=0.1)


def test_missed_people_have_another_colour_than_found_ones(small, cases):
    drawn = [colours(draw_labelled(GREY, case, small.skeleton, side=150)) for case in cases]
    assert [(RIGHT in drawn[n], FAULT in drawn[n]) for n in range(3)] == [(True, False), (True, True), (False, False)]


def test_wrong_results_have_another_colour_than_right_ones(small, cases):
    drawn = [colours(draw_found(GREY, case, small.skeleton, side=150, keypoint_threshold=0.2)) for case in cases]
    shown = [(RIGHT in drawn[n], FAULT in drawn[n]) for n in range(4)]
    assert shown == [(True, False), (True, False), (False, True), (False, False)]
    assert IGNORED in drawn[3]


def test_picture_without_people_is_left_as_it_is(small, cases):
    assert (draw_labelled(GREY, cases[4], small.skeleton, side=150) == GREY).all()


def test_person_out_of_the_picture_is_drawn_without_fault(small, cases):
    small.results[0]["keypoints"][:2] = [-1e4, 1e5]
    assert draw_found(GREY, cases[0], small.skeleton, side=60, keypoint_threshold=0.0).shape == (40, 60, 3)


@pytest.mark.parametrize(("side", "shape"), [(75, (50, 75, 3)), (1000, (100, 150, 3)), (1, (1, 1, 3))])
def test_pictures_are_made_smaller_never_larger(side, shape):
    assert fit_side(GREY, side)[0].shape == shape


def test_poses_move_with_pixel_centers():
    poses = Poses(
        keypoints=np.tile([[0.0, 0.0], [149.0, 99.0]], (1, 9, 1))[:, :17],
        keypoint_scores=np.ones((1, 17)),
        scores=[1.0],
        image_size=(100, 150),
    )
    small, moved = fit_poses(GREY, poses, 75)
    # Half the size: the center of the first pixel, 0.5 px from the edge, is 0.25 px from it.
    assert moved.keypoints[0, 0] == pytest.approx([-0.25, -0.25])
    assert moved.keypoints[0, 1] == pytest.approx([74.25, 49.25])
    assert moved.image_size == small.shape[:2]
