"""Pixels of video buffers, against plain numpy and the formulas of the standards."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from posesdk.gst.frames import to_bgr
from posesdk.gst.layout import FORMATS, Layout

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
    return Layout(name, width, height, tuple(strides), tuple(offsets), **colors)  # type: ignore[arg-type]


def noise(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def pixels(memory: NDArray[np.uint8], layout: Layout) -> Iterator[tuple[int, int, list[int]]]:
    """x, y and the bytes of each pixel, one by one: its channels, or Y, U and V."""
    where = list(zip(layout.offsets, layout.strides, strict=True))
    for y in range(layout.height):
        for x in range(layout.width):
            start = where[0][0] + y * where[0][1]
            if layout.format == "NV12":
                chroma = where[1][0] + y // 2 * where[1][1] + x // 2 * 2
                places = [start + x, chroma, chroma + 1]
            elif layout.format == "I420":
                places = [start + x, *(offset + y // 2 * stride + x // 2 for offset, stride in where[1:])]
            else:
                bytes_each = {"GRAY8": 1, "RGB": 3, "BGR": 3}.get(layout.format, 4)
                places = [start + x * bytes_each + channel for channel in range(bytes_each)]
            yield x, y, [int(memory[place]) for place in places]


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
        Layout(*values)  # type: ignore[arg-type]
