"""The pixels of the network's input, bit by bit those of the plain formulas."""

import cv2
import numpy as np
import pytest

import plain_formulas
from posesdk import warping
from posesdk.area import shrink_to_rgb
from posesdk.preprocess import make_letterbox
from posesdk.spec import InputSpec

LONG = InputSpec(resize="long", side=64, multiple=16)
SHORT = InputSpec(resize="short", side=32, multiple=16)
FIXED = InputSpec(resize="fixed", size=(48, 64), multiple=16)
SPECS = {"long": LONG, "short": SHORT, "fixed": FIXED, "odd": LONG.model_copy(update={"side": 60})}
SIZES = [
    *[(factor * 36, factor * 64) for factor in (1, 2, 3, 4, 6)],  # a whole factor, and a border of whole pixels
    *[(factor * 33, factor * 64) for factor in (1, 2, 4)],  # a border of half pixels
    *[(128, 72), (192, 192), (96, 128), (48, 64), (32, 32), (1, 64), (64, 1), (1, 1), (3, 7)],
    *[(75, 100), (85, 128), (127, 128), (129, 128), (144, 255), (143, 256), (145, 256), (97, 333)],
]


def _picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_consistent_net_is_that_of_opencv_alone(size, spec):
    letterbox, picture = make_letterbox(size, spec, "consistent"), _picture(size)
    expected = plain_formulas.warp_with_areas(picture, letterbox.net_size, letterbox.matrix)
    np.testing.assert_array_equal(letterbox.warp(picture), expected)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_published_net_is_that_of_whole_passes(size, spec):
    letterbox, picture = make_letterbox(size, spec, "published"), _picture(size)
    expected = plain_formulas.warp_in_float(picture, letterbox.net_size, letterbox.matrix)
    np.testing.assert_array_equal(letterbox.warp(picture), expected)


def test_usual_videos_take_the_short_way(monkeypatch):
    """Else the test above would compare OpenCV with itself."""
    targets = []
    monkeypatch.setattr(warping, "shrink_to_rgb", lambda image, target: targets.append(target.shape[:2]))
    nano = InputSpec(resize="long", side=320, multiple=32)
    for size in ((720, 1280), (1920, 1080), (480, 640), (540, 960), (240, 320), (2160, 3840)):
        make_letterbox(size, nano, "consistent").warp(_picture(size))
    assert targets == [(180, 320), (320, 180), (240, 320), (180, 320), (240, 320), (180, 320)]
    make_letterbox((375, 500), nano, "consistent").warp(_picture((375, 500)))
    assert len(targets) == 6


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 31, 256, 257])
def test_mean_of_areas_rounds_as_opencv_does(factor):
    """Levels of 0 and 1 make sums that end in a half as often as any do; 255 makes the largest ones."""
    for seed, levels in enumerate([(0, 2), (0, 256), (255, 256)]):
        shape = (factor * (60 if factor < 10 else 2), factor * 3, 3)
        picture = np.random.default_rng(seed).integers(*levels, shape, dtype=np.uint8)
        small = (3, shape[0] // factor)
        target = np.full((small[1], 5, 3), 7, np.uint8)
        shrink_to_rgb(picture, target[:, 1:4])
        expected = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)[..., ::-1]
        np.testing.assert_array_equal(target[:, 1:4], expected)
        assert (target[:, [0, 4]] == 7).all()


@pytest.mark.parametrize("frame", ["published", "consistent"])
@pytest.mark.parametrize("size", [(144, 256), (96, 128), (75, 100), (48, 64)])
def test_a_view_into_a_larger_picture_gives_what_its_copy_gives(size, frame):
    letterbox = make_letterbox(size, FIXED, frame)
    large = _picture((2 * size[0], size[1] + 9))
    for view in (large[::2, 4 : size[1] + 4], large[: size[0], : size[1]][:, ::-1], large[: size[0], 9:][..., ::-1]):
        np.testing.assert_array_equal(letterbox.warp(view), letterbox.warp(view.copy()))


def test_a_large_video_frame_is_worked_on_in_parts():
    picture = _picture((1080, 1920))
    letterbox = make_letterbox((1080, 1920), InputSpec(resize="long", side=320, multiple=32), "consistent")
    expected = plain_formulas.warp_with_areas(picture, letterbox.net_size, letterbox.matrix)
    np.testing.assert_array_equal(letterbox.warp(picture), expected)
