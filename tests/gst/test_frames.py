"""Pixels of video buffers, against plain numpy and the formulas of the standards."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from posesdk.draw import draw_poses
from posesdk.gst.frames import draw_on, to_bgr
from posesdk.gst.layout import FORMATS, Layout
from posesdk.poses import Poses

SIZES = [(16, 16), (17, 19), (32, 21), (33, 130), (3, 1)]
"""Width and height: even, odd, more rows than are converted at once."""
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


def make_layout(name: str, width: int, height: int, padding: int = 0, **colors: object) -> Layout:
    """Planes one after the other, with `padding` bytes after each row and before each plane."""
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    rows = {
        "NV12": [(height, width), (half_height, 2 * half_width)],
        "I420": [(height, width), (half_height, half_width), (half_height, half_width)],
        "GRAY8": [(height, width)],
    }.get(name, [(height, width * (4 if len(name) == 4 else 3))])
    strides, offsets, end = [], [], 0
    for count, length in rows:
        strides.append(length + padding)
        offsets.append(end + padding)
        end = offsets[-1] + count * strides[-1]
    return Layout(name, width, height, tuple(strides), tuple(offsets), **colors)


def noise(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def byte_places(layout: Layout, x: int, y: int) -> list[int]:
    """Where the bytes of a pixel lie: its channels, or Y, U and V."""
    where = list(zip(layout.offsets, layout.strides, strict=True))
    start = where[0][0] + y * where[0][1]
    if layout.format == "NV12":
        chroma = where[1][0] + y // 2 * where[1][1] + x // 2 * 2
        return [start + x, chroma, chroma + 1]
    if layout.format == "I420":
        return [start + x, *(offset + y // 2 * stride + x // 2 for offset, stride in where[1:])]
    bytes_each = {"GRAY8": 1, "RGB": 3, "BGR": 3}.get(layout.format, 4)
    return [start + x * bytes_each + channel for channel in range(bytes_each)]


def pixels(memory: NDArray[np.uint8], layout: Layout) -> Iterator[tuple[int, int, list[int]]]:
    """x, y and the bytes of each pixel, one by one."""
    for y in range(layout.height):
        for x in range(layout.width):
            yield x, y, memory[byte_places(layout, x, y)].tolist()


def reference(memory: NDArray[np.uint8], layout: Layout) -> NDArray[np.float64]:
    """(H, W, 3) BGR, not rounded."""
    picture = np.zeros((layout.height, layout.width, 3))
    for x, y, values in pixels(memory, layout):
        if layout.format in ("NV12", "I420"):
            picture[y, x] = bgr_of_yuv(*values, layout)
        elif layout.format == "GRAY8":
            picture[y, x] = values[0]
        else:
            picture[y, x] = values[:3] if layout.format.startswith("B") else values[2::-1]
    return picture


def bgr_of_yuv(y: int, u: int, v: int, layout: Layout) -> list[float]:
    """Solves the definition of luma and of the two colour differences for blue, green and red."""
    low, luma_steps, chroma_steps = (0, 255, 255) if layout.full_range else (16, 219, 224)
    luma, pb, pr = (y - low) / luma_steps, (u - 128) / chroma_steps, (v - 128) / chroma_steps
    of_red, of_blue = layout.luma
    blue, red = luma + 2 * (1 - of_blue) * pb, luma + 2 * (1 - of_red) * pr
    green = (luma - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return [min(max(255 * value, 0.0), 255.0) for value in (blue, green, red)]


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_size_and_padding_gives_the_picture(name: str, size: tuple[int, int], padding: int) -> None:
    layout = make_layout(name, *size, padding)
    memory = noise(layout.size)
    picture = to_bgr(memory, layout)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture - reference(memory, layout)).max() <= (1 if name in ("NV12", "I420") else 0)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("luma", [BT601, BT709, BT2020], ids=["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("name", ["NV12", "I420"])
def test_colors_follow_the_matrix_and_the_range(name: str, luma: tuple[float, float], full_range: bool) -> None:
    layout = make_layout(name, 34, 26, 2, luma=luma, full_range=full_range)
    memory = noise(layout.size)
    assert np.abs(to_bgr(memory, layout) - reference(memory, layout)).max() <= 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_picture_owns_its_memory(name: str) -> None:
    layout = make_layout(name, 18, 17, 5)
    memory = noise(layout.size)
    picture = to_bgr(memory, layout)
    before = picture.copy()
    memory[:] = 0
    assert picture.flags.c_contiguous
    assert picture.flags.writeable
    assert not np.shares_memory(picture, memory)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("name", FORMATS)
def test_read_only_memory_is_read(name: str) -> None:
    layout = make_layout(name, 18, 17)
    memory = noise(layout.size)
    assert np.array_equal(to_bgr(memory.tobytes(), layout), to_bgr(memoryview(memory), layout))


@pytest.mark.parametrize("name", FORMATS)
def test_one_byte_too_few_is_refused_and_the_last_row_needs_no_padding(name: str) -> None:
    layout = make_layout(name, 17, 19, 8)
    to_bgr(noise(layout.size), layout)
    with pytest.raises(ValueError, match=rf"{layout.size - 1} bytes is too short for {name} 17x19.*{layout.size}"):
        to_bgr(noise(layout.size - 1), layout)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("YUY2", 16, 16, (32,), (0,)), "expected a video format of RGB.*'YUY2'"),
        (("RGB", 0, 16, (48,), (0,)), "at least one pixel, got 0x16"),
        (("NV12", 16, 16, (16,), (0,)), "NV12 has 2 planes"),
        (("RGB", 17, 16, (50,), (0,)), "51 bytes does not fit stride 50"),
        (("NV12", 17, 16, (20, 17), (0, 320)), "18 bytes does not fit stride 17"),
        (("GRAY8", 16, 16, (16,), (-1,)), "offset -1"),
    ],
)
def test_what_cannot_be_a_picture_is_no_layout(values: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(*values)


PACKED = ("RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA")
DRAWN_SIZES = [(160, 120), (161, 121)]
BLENDS = 5
"""Of 255: OpenCV rounds at every stroke, and a pixel may be blended by ten of them."""
TEXTS = [{}, {"boxes": True, "scores": True}]


def people(width: int, height: int) -> Poses:
    """Three: in the middle, over a corner, and outside; some keypoints are not visible."""
    random = np.random.default_rng(7)
    centers = np.array([(0.5, 0.5), (0.98, 0.97), (-2, 0.4)]) * (width, height)
    return Poses(
        keypoints=centers[:, None] + random.normal(0, 25, (3, 17, 2)),
        keypoint_scores=random.uniform(0.2, 1, (3, 17)),
        scores=[0.9, 0.8, 0.7],
        image_size=(height, width),
        keypoint_threshold=0.3,
    )


def calm(layout: Layout) -> NDArray[np.uint8]:
    """Colors that no conversion has to clip."""
    return np.random.default_rng(3).integers(110, 146, layout.size, np.uint8)


def touched(layout: Layout, poses: Poses, **texts: bool) -> NDArray[np.bool_]:
    """(H, W) where a stroke changes black or white."""
    shape = (layout.height, layout.width, 3)
    frames = (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))
    return np.any([(draw_poses(frame, poses, **texts) != frame).any(axis=2) for frame in frames], axis=0)


def bytes_of(layout: Layout, marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(size,) the bytes that belong to marked pixels."""
    found = np.zeros(layout.size, bool)
    for y, x in np.argwhere(marked).tolist():
        found[byte_places(layout, x, y)] = True
    return found


def yuv_of_bgr(picture: NDArray[np.uint8], layout: Layout) -> NDArray[np.float64]:
    blue, green, red = np.moveaxis(picture / 255, 2, 0)
    of_red, of_blue = layout.luma
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    low, luma_steps, chroma_steps = (0, 255, 255) if layout.full_range else (16, 219, 224)
    pb, pr = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    return np.stack([low + luma_steps * luma, 128 + chroma_steps * pb, 128 + chroma_steps * pr], axis=2)


@pytest.mark.parametrize("texts", TEXTS, ids=["plain", "texts"])
@pytest.mark.parametrize("size", DRAWN_SIZES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_drawing_leaves_every_byte_that_no_stroke_touches(
    name: str, size: tuple[int, int], texts: dict[str, bool]
) -> None:
    layout = make_layout(name, *size, 6)
    memory, poses = noise(layout.size), people(*size)
    drawn = memory.copy()
    draw_on(drawn, layout, poses, **texts)
    changed = drawn != memory
    assert changed.any()
    assert not changed[~bytes_of(layout, touched(layout, poses, **texts))].any()


@pytest.mark.parametrize("texts", TEXTS, ids=["plain", "texts"])
@pytest.mark.parametrize("size", DRAWN_SIZES, ids=str)
@pytest.mark.parametrize("name", PACKED)
def test_drawing_on_rgb_equals_drawing_on_the_picture(name: str, size: tuple[int, int], texts: dict[str, bool]) -> None:
    layout = make_layout(name, *size, 6)
    memory, poses = noise(layout.size), people(*size)
    expected = draw_poses(to_bgr(memory, layout), poses, **texts)
    draw_on(memory, layout, poses, **texts)
    assert np.abs(to_bgr(memory, layout).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", DRAWN_SIZES, ids=str)
def test_drawing_on_gray_gives_the_gray_of_the_drawn_picture(size: tuple[int, int]) -> None:
    layout = make_layout("GRAY8", *size, 6)
    memory, poses = noise(layout.size), people(*size)
    expected = draw_poses(to_bgr(memory, layout), poses) @ [0.114, 0.587, 0.299]
    draw_on(memory, layout, poses)
    assert np.abs(to_bgr(memory, layout)[..., 0] - expected).max() <= BLENDS


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("luma", [BT601, BT709], ids=["bt601", "bt709"])
@pytest.mark.parametrize("size", DRAWN_SIZES, ids=str)
@pytest.mark.parametrize("name", ["NV12", "I420"])
def test_drawing_on_yuv_gives_the_yuv_of_the_drawn_picture(
    name: str, size: tuple[int, int], luma: tuple[float, float], full_range: bool
) -> None:
    layout = make_layout(name, *size, 6, luma=luma, full_range=full_range)
    memory, poses = calm(layout), people(*size)
    expected = yuv_of_bgr(draw_poses(to_bgr(memory, layout), poses, boxes=True), layout)
    draw_on(memory, layout, poses, boxes=True)
    width, height = size
    found = np.zeros((height, width, 3))
    for x, y, values in pixels(memory, layout):
        found[y, x] = values
    assert np.abs(found - expected)[..., 0].max() <= BLENDS
    assert np.abs(found - expected)[..., 0].mean() < 0.5
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            mean = expected[y : y + 2, x : x + 2, 1:].mean(axis=(0, 1))
            assert np.abs(found[y, x, 1:] - mean).max() <= BLENDS, (x, y)


@pytest.mark.parametrize("name", ["RGBA", "BGRA"])
def test_strokes_are_opaque_and_the_rest_keeps_its_opacity(name: str) -> None:
    layout = make_layout(name, 160, 120)
    memory, poses = np.full(layout.size, 40, np.uint8), people(160, 120)
    draw_on(memory, layout, poses)
    opacity = memory.reshape(120, 160, 4)[..., 3]
    x, y = np.rint(poses.keypoints[0][poses.visible[0]][-1]).astype(int)
    assert opacity[y, x] == 255
    assert (opacity[~touched(layout, poses)] == 40).all()


@pytest.mark.parametrize("name", FORMATS)
def test_without_people_nothing_changes(name: str) -> None:
    layout = make_layout(name, 33, 17, 3)
    memory = noise(layout.size)
    before = memory.copy()
    draw_on(memory, layout, people(33, 17)[[]], boxes=True, scores=True)
    assert np.array_equal(memory, before)


def test_drawing_on_what_cannot_be_written_is_refused() -> None:
    layout = make_layout("NV12", 32, 32)
    with pytest.raises(ValueError, match="read-only"):
        draw_on(noise(layout.size).tobytes(), layout, people(32, 32))
    with pytest.raises(ValueError, match="too short"):
        draw_on(noise(layout.size - 1), layout, people(32, 32))
