import numpy as np
import pytest

from posesdk.draw import CENTER, LEFT, RIGHT, Canvas, draw_person, draw_poses, person_extent
from posesdk.poses import Poses
from posesdk.skeleton import Skeleton

CROSS = Skeleton(
    name="cross-4",
    keypoints=("left_hand", "left_foot", "right_hand", "neck"),
    edges=((0, 1), (0, 2), (2, 3)),
    sigmas=(0.1,) * 4,
)
GREY = 90


def cross(points, scores=(1, 1, 1, 1), image_size=(200, 200)) -> Poses:
    return Poses(
        keypoints=[points],
        keypoint_scores=[scores],
        scores=[0.5],
        image_size=image_size,
        skeleton=CROSS,
        keypoint_threshold=0.5,
    )


def nearest(pixel):
    """The drawing color that a pixel, blended by the anti-aliasing, is closest to."""
    palette = (LEFT, RIGHT, CENTER, (GREY,) * 3)
    return min(palette, key=lambda color: np.abs(np.subtract(pixel, color, dtype=float)).sum())


def canvas(height=200, width=200):
    return np.full((height, width, 3), GREY, np.uint8)


SQUARE = [(40, 40), (40, 160), (160, 40), (160, 160)]


def test_limbs_have_the_color_of_their_side():
    drawn = draw_poses(canvas(), cross(SQUARE))
    assert nearest(drawn[100, 40]) == LEFT
    assert nearest(drawn[40, 100]) == CENTER
    assert nearest(drawn[100, 160]) == RIGHT
    assert len({LEFT, RIGHT, CENTER}) == 3


def test_a_hidden_keypoint_hides_its_limbs_and_nothing_else():
    drawn = draw_poses(canvas(), cross(SQUARE, scores=(1, 0.1, 1, 1)))
    assert (drawn[60:, 20:60] == GREY).all()
    assert nearest(drawn[40, 100]) == CENTER


def test_a_frame_without_people_comes_back_unchanged_as_a_copy():
    frame = canvas()
    empty = cross(SQUARE)[[]]
    drawn = draw_poses(frame, empty, boxes=True, scores=True)
    assert (drawn == frame).all()
    assert not np.shares_memory(drawn, frame)


def test_lines_grow_with_the_person():
    big = draw_poses(canvas(1000, 1000), cross(np.array(SQUARE) * 5.0))
    small = draw_poses(canvas(1000, 1000), cross(SQUARE))
    thick = np.count_nonzero((big[400, 100:300] != GREY).any(axis=1))
    thin = np.count_nonzero((small[100, 20:60] != GREY).any(axis=1))
    assert thick > thin >= 1


def test_coordinates_are_drawn_to_a_fraction_of_a_pixel():
    half = draw_poses(canvas(), cross(np.array(SQUARE) + 0.5))
    whole = draw_poses(canvas(), cross(SQUARE))
    assert (half != whole).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5)])
def test_tiny_pictures_are_drawn(size):
    drawn = draw_poses(canvas(*size), cross([(0, 0), (1, 1), (2, 0), (3, 3)]), boxes=True, scores=True)
    assert drawn.shape == (*size, 3)
    assert (drawn != GREY).any()


@pytest.mark.parametrize("far", [1e4, -1e4, 1e12, -3e38])
def test_keypoints_outside_the_picture_leave_the_inside_part_of_their_limbs(far):
    drawn = draw_poses(canvas(), cross([(100, 100), (100, far), (100, 100), (100, 100)]), boxes=True, scores=True)
    inside = 150 if far > 0 else 50
    assert (drawn[inside, 95:106] != GREY).any()


def test_keypoints_without_a_number_are_left_out():
    drawn = draw_poses(canvas(), cross([(40, 40), (np.nan, 160), (160, 40), (160, np.inf)]), boxes=True, scores=True)
    assert nearest(drawn[40, 100]) == CENTER
    assert (drawn[60:, 20:60] == GREY).all()


def test_the_box_and_the_score_are_drawn_on_request():
    plain, boxed = (draw_poses(canvas(), cross(SQUARE), boxes=boxes) for boxes in (False, True))
    assert (plain[160, 100] == GREY).all()
    assert (boxed[160, 100] > 200).all()
    assert (draw_poses(canvas(), cross(SQUARE), scores=True) != plain).any()


@pytest.mark.parametrize("frame", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_a_frame_that_is_no_color_picture_is_refused(frame):
    with pytest.raises(ValueError, match=r"expected a frame \(H, W, 3\) uint8 BGR"):
        draw_poses(frame, cross(SQUARE))


@pytest.mark.parametrize("texts", [{}, {"boxes": True}, {"scores": True}], ids=str)
@pytest.mark.parametrize("side", [3.0, 40.0, 400.0])
def test_a_person_is_drawn_within_its_extent(side, texts):
    poses = cross(np.array([(60, 60), (60 + side, 61), (61, 60 + side), (90, 70)]), image_size=(300, 250))
    left, top, right, bottom = person_extent(poses[0], (300, 250), **texts)
    changed = (draw_poses(canvas(300, 250), poses, **texts) != GREY).any(axis=2)
    assert changed.any()
    changed[top:bottom, left:right] = False
    assert not changed.any()


def test_nothing_to_draw_has_no_extent():
    left, top, right, bottom = person_extent(cross(SQUARE, scores=(0, 0, 0, 0))[0], (200, 200), boxes=False)
    assert right <= left or bottom <= top
    left, top, right, bottom = person_extent(cross(np.array(SQUARE) + 5000)[0], (200, 200), boxes=True)
    assert right <= left or bottom <= top


def test_a_part_of_a_frame_is_drawn_like_the_whole():
    poses = cross(SQUARE, image_size=(300, 250))
    whole = draw_poses(canvas(300, 250), poses, boxes=True, scores=True)
    left, top, right, bottom = person_extent(poses[0], (300, 250), boxes=True, scores=True)
    part = canvas(bottom - top, right - left)
    draw_person(Canvas(part, (300, 250), (left, top)), poses[0], boxes=True, scores=True)
    assert (part == whole[top:bottom, left:right]).all()
