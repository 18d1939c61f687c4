import cv2
import numpy as np
import pytest

from posesdk.preprocess import make_letterbox
from posesdk.spec import InputSpec

SHORT = InputSpec(resize="short", side=64)
LONG = InputSpec(resize="long", side=320, multiple=32)
FIXED = InputSpec(resize="fixed", size=(256, 320), multiple=32)
FRAMES = ("published", "consistent")


def test_published_geometry_is_the_reference(reference):
    for row in reference("preprocess_geometry")["rows"]:
        height, width, side = (int(value) for value in row[:3])
        letterbox = make_letterbox((height, width), InputSpec(side=side), "published")
        assert letterbox.net_size == (row[4], row[3])
        np.testing.assert_allclose(letterbox.matrix.ravel(), row[9:15], rtol=0, atol=1e-9)
        corners = np.array([[0.0, 0.0], [700.0, 0.0], [0.0, 500.0]])
        expected = corners @ row[15:21].reshape(2, 3)[:, :2].T + row[15:21].reshape(2, 3)[:, 2]
        np.testing.assert_allclose(letterbox.to_image(corners), expected, rtol=1e-6, atol=1e-4)


def test_published_warp_is_that_of_opencv_5_with_any_opencv(reference):
    arrays = reference("preprocess_warp")
    image = np.ascontiguousarray(arrays["rgb_u8"][..., ::-1])
    net = make_letterbox((53, 101), SHORT, "published").warp(image)
    np.testing.assert_array_equal(net, arrays["warp_opencv_5_0_0"])
    assert np.abs(net.astype(int) - arrays["warp_opencv_4_5_5"]).max() <= 4


@pytest.mark.parametrize("image_size", [(480, 640), (90, 75), (37, 211)])
def test_published_warp_is_bilinear_in_float(image_size):
    image = np.random.default_rng(4).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    letterbox = make_letterbox(image_size, SHORT, "published")
    net = letterbox.warp(image)
    points = np.random.default_rng(5).integers(0, letterbox.net_size[::-1], (300, 2))
    inverse = np.linalg.inv(np.vstack([letterbox.matrix, [0, 0, 1]]))
    padded = np.pad(image[..., ::-1].astype(float), ((2, 2), (2, 2), (0, 0)))  # black around the image
    for x, y in points:
        u, v, _ = inverse @ [x, y, 1]
        if not (-1 <= u < image_size[1] and -1 <= v < image_size[0]):
            assert not net[y, x].any()
            continue
        i, j = int(np.floor(u)), int(np.floor(v))
        corners = padded[j + 2 : j + 4, i + 2 : i + 4]
        top, bottom = corners[:, 0] * (i + 1 - u) + corners[:, 1] * (u - i)
        expected = top * (j + 1 - v) + bottom * (v - j)
        assert np.abs(net[y, x] - expected).max() <= 0.5 + 1e-3


def test_published_frame_cuts_off_less_than_one_pixel_and_consistent_keeps_it():
    # 512 / 999 * 1000 = 512.51: published rounding is (x + 63) // 64 * 64.
    assert make_letterbox((999, 1000), InputSpec(side=512), "published").net_size == (512, 512)
    assert make_letterbox((999, 1000), InputSpec(side=512), "consistent").net_size == (512, 576)


@pytest.mark.parametrize(
    ("image_size", "spec", "net_size", "scale"),
    [
        ((480, 640), InputSpec(side=500), (512, 704), 512 / 480),
        ((640, 480), InputSpec(side=500), (704, 512), 512 / 480),
        ((480, 640), LONG, (256, 320), 0.5),
        ((640, 480), LONG, (320, 256), 0.5),
        ((360, 640), LONG, (192, 320), 0.5),
        ((480, 640), InputSpec(resize="long", side=300, multiple=32), (256, 320), 300 / 640),
        ((480, 640), FIXED, (256, 320), 0.5),
        ((1080, 1920), FIXED, (256, 320), 320 / 1920),
        ((640, 100), FIXED, (256, 320), 256 / 640),
    ],
)
def test_resize_mode_gives_net_size_and_scale(image_size, spec, net_size, scale):
    letterbox = make_letterbox(image_size, spec, "consistent")
    assert letterbox.net_size == net_size
    assert letterbox.scale == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("spec", [SHORT, InputSpec(side=512), LONG, FIXED])
@pytest.mark.parametrize("image_size", [(480, 640), (641, 427), (333, 333), (53, 101), (1080, 1920), (1, 7)])
def test_points_return_from_the_net_to_the_image(image_size, spec, frame):
    letterbox = make_letterbox(image_size, spec, frame)
    points = np.random.default_rng(0).uniform(-0.5, 1.5, (5, 4, 2)) * [image_size[1], image_size[0]]
    net = letterbox.to_net(points)
    assert net.dtype == np.float32
    assert net.shape == points.shape
    expected = points @ letterbox.matrix[:, :2].T + letterbox.matrix[:, 2]
    np.testing.assert_allclose(net, expected, rtol=1e-6, atol=1e-4)
    assert np.abs(letterbox.to_image(expected) - points).max() < 1e-6 * max(*image_size, *letterbox.net_size)


@pytest.mark.parametrize("spec", [SHORT, LONG, FIXED])
@pytest.mark.parametrize("image_size", [(480, 640), (101, 53), (479, 641)])
def test_image_center_is_the_net_center(image_size, spec):
    height, width = image_size
    consistent = make_letterbox(image_size, spec, "consistent")
    middle = np.array(consistent.net_size[::-1]) / 2
    np.testing.assert_allclose(consistent.to_net([(width - 1) / 2, (height - 1) / 2]), middle - 0.5, atol=1e-4)
    published = make_letterbox(image_size, spec, "published")
    np.testing.assert_allclose(published.to_net([(width + 1) // 2, (height + 1) // 2]), middle, atol=1e-4)


def _blob(image_size, center, sigma):
    y, x = np.mgrid[: image_size[0], : image_size[1]]
    blob = 250 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("image_size", "sigma"), [((901, 1303), 60), ((240, 310), 15), ((97, 64), 6)])
def test_picture_moves_as_points_do(image_size, sigma, frame):
    letterbox = make_letterbox(image_size, LONG, frame)
    center = np.array([image_size[1] * 0.45, image_size[0] * 0.6])
    net = letterbox.warp(_blob(image_size, center, sigma))[..., 0].astype(np.float64)
    y, x = np.mgrid[: net.shape[0], : net.shape[1]]
    centroid = np.array([(net * x).sum(), (net * y).sum()]) / net.sum()
    np.testing.assert_allclose(centroid, letterbox.to_net(center), atol=0.05)


def test_strong_reduction_averages_in_the_consistent_frame_only():
    image = np.zeros((800, 1280, 3), np.uint8)
    image[::4] = 240  # rows that a scale of 1/4 would all hit, or all miss
    means = {frame: make_letterbox(image.shape[:2], LONG, frame).warp(image)[60:160].mean() for frame in FRAMES}
    assert means["consistent"] == pytest.approx(60, abs=2)
    assert abs(means["published"] - 60) > 20


def test_plain_warp_below_the_reduction_is_warp_affine():
    image = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    letterbox = make_letterbox((300, 400), LONG, "consistent")
    expected = cv2.warpAffine(image, letterbox.matrix, (320, 256), flags=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_array_equal(letterbox.warp(image), expected)


def test_border_is_black_on_both_sides_and_channels_become_rgb():
    image = np.full((100, 320, 3), (10, 20, 30), np.uint8)
    net = make_letterbox((100, 320), FIXED, "consistent").warp(image)
    assert net.flags.c_contiguous
    assert (net[:78] == 0).all()
    assert (net[178:] == 0).all()
    assert (net[78:178] == (30, 20, 10)).all()


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("spec", [SHORT, LONG, FIXED])
@pytest.mark.parametrize("image_size", [(1, 1), (1, 40000), (40000, 1), (2, 3000), (33000, 40)])
def test_any_shape_of_image_can_be_warped(image_size, spec, frame):
    letterbox = make_letterbox(image_size, spec, frame)
    assert max(letterbox.net_size) <= 16 * min(letterbox.net_size)
    net = letterbox.warp(np.full((*image_size, 3), 200, np.uint8))
    assert net.shape == (*letterbox.net_size, 3)
    ends = letterbox.to_net([[-0.5, -0.5], [image_size[1] - 0.5, image_size[0] - 0.5]])
    slack = letterbox.scale + 1  # the published frame is off the middle by up to one image pixel, and may cut one
    assert (ends >= -0.5 - slack).all()
    assert (ends <= np.array(letterbox.net_size[::-1]) - 0.5 + slack).all()


@pytest.mark.parametrize("shape", [(10, 12, 3), (12, 10), (12, 10, 4)])
def test_image_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected an image of shape"):
        make_letterbox((12, 10), FIXED, "consistent").warp(np.zeros(shape, np.uint8))


def test_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        make_letterbox((0, 10), FIXED, "consistent")
