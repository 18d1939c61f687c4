"""Layouts of buffers, as GStreamer itself lays them out."""

from typing import Any

import pytest

from posesdk.gst import why_unavailable
from posesdk.gst.layout import FORMATS, layout_of

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")


def video_info(name: str, width: int, height: int, colorimetry: str = "") -> Any:
    from posesdk.gst.bindings import Gst, GstVideo

    caps = f"video/x-raw,format={name},width={width},height={height},framerate=30/1"
    return GstVideo.VideoInfo.new_from_caps(Gst.Caps(caps + (f",colorimetry={colorimetry}" if colorimetry else "")))


@pytest.mark.parametrize("size", [(64, 32), (33, 17)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_a_bare_buffer_lies_as_its_caps_say(name: str, size: tuple[int, int]) -> None:
    from posesdk.gst.bindings import Gst

    info = video_info(name, *size)
    layout = layout_of(Gst.Buffer.new_allocate(None, info.size, None), info)
    planes = info.finfo.n_planes
    assert (layout.width, layout.height) == size
    assert (layout.strides, layout.offsets) == (tuple(info.stride[:planes]), tuple(info.offset[:planes]))
    assert info.size - max(layout.strides) < layout.size <= info.size


def test_the_video_meta_of_a_buffer_counts_more_than_its_caps() -> None:
    from posesdk.gst.bindings import Gst, GstVideo

    buffer = Gst.Buffer.new_allocate(None, 446976, None)
    offsets, strides = [0, 297984, 372480, 0], [768, 384, 384, 0]
    flags, kind = GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.I420
    GstVideo.buffer_add_video_meta_full(buffer, flags, kind, 642, 362, 3, offsets, strides)
    layout = layout_of(buffer, video_info("I420", 642, 362))
    assert (layout.strides, layout.offsets) == ((768, 384, 384), (0, 297984, 372480))
    assert layout.size == 372480 + 384 * 180 + 321


@pytest.mark.parametrize(
    ("colorimetry", "height", "luma", "full_range"),
    [
        ("", 480, (0.299, 0.114), False),
        ("", 720, (0.2126, 0.0722), False),
        ("bt601", 720, (0.299, 0.114), False),
        ("bt709", 480, (0.2126, 0.0722), False),
        ("bt2020", 480, (0.2627, 0.0593), False),
        ("1:4:0:0", 480, (0.299, 0.114), True),
    ],
)
def test_colors_are_those_of_the_caps(
    colorimetry: str, height: int, luma: tuple[float, float], full_range: bool
) -> None:
    from posesdk.gst.bindings import Gst

    layout = layout_of(Gst.Buffer.new(), video_info("NV12", 64, height, colorimetry))
    assert layout.luma == pytest.approx(luma)
    assert layout.full_range is full_range


def test_a_format_that_no_element_takes_is_refused() -> None:
    from posesdk.gst.bindings import Gst

    with pytest.raises(ValueError, match="'YUY2'"):
        layout_of(Gst.Buffer.new(), video_info("YUY2", 64, 64))
