"""Where the pixels of a raw video buffer lie, and how its colours are coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posesdk.gst.bindings import Gst, GstVideo

__all__ = ["FORMATS", "Layout", "Plane", "layout_of"]

BT601 = (0.299, 0.114)
"""Parts of red and of blue in the luma of ITU-R BT.601, what GStreamer takes for standard definition and JPEG."""

FULL_RANGE = 1
"""GST_VIDEO_COLOR_RANGE_0_255, whose name Python cannot spell."""

FORMATS: dict[str, tuple[tuple[int, int], ...]] = {
    "RGB": ((1, 3),),
    "BGR": ((1, 3),),
    "RGBx": ((1, 4),),
    "BGRx": ((1, 4),),
    "RGBA": ((1, 4),),
    "BGRA": ((1, 4),),
    "NV12": ((1, 1), (2, 2)),
    "I420": ((1, 1), (2, 1), (2, 1)),
    "GRAY8": ((1, 1),),
}
"""The formats that the elements take; of each plane: pixels per sample along both axes, and bytes per sample."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of a picture in a buffer: samples, bytes per sample, bytes from row to row, where the first row is."""

    rows: int
    columns: int
    channels: int
    stride: int
    offset: int

    @property
    def end(self) -> int:
        """Bytes of the buffer up to the end of the last row; that row needs no padding."""
        return self.offset + self.stride * (self.rows - 1) + self.columns * self.channels


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture of one of `FORMATS` in a buffer: size in pixels, and of each plane its stride and offset in bytes.

    `luma` are the parts of red and of blue in luma, and `full_range` says whether luma and chroma use 0..255; both
    matter for NV12 and I420 only, as RGB and GRAY8 are taken as full range. ValueError for what cannot be a picture.
    """

    format: str
    width: int
    height: int
    strides: tuple[int, ...]
    offsets: tuple[int, ...]
    luma: tuple[float, float] = BT601
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"expected a video format of {', '.join(FORMATS)}, got {self.format!r}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a picture needs at least one pixel, got {self.width}x{self.height}")
        count = len(FORMATS[self.format])
        if len(self.strides) != count or len(self.offsets) != count:
            raise ValueError(f"{self.format} has {count} planes, got strides {self.strides}, offsets {self.offsets}")
        for plane in self.planes:
            if plane.stride < plane.columns * plane.channels or plane.offset < 0:
                raise ValueError(
                    f"{self.format} {self.width}x{self.height}: a row of {plane.columns * plane.channels} bytes does "
                    f"not fit stride {plane.stride}, offset {plane.offset}"
                )

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Each plane; of an odd size, the chroma planes are rounded up."""
        samples = FORMATS[self.format]
        return tuple(
            Plane(-(-self.height // step), -(-self.width // step), channels, stride, offset)
            for (step, channels), stride, offset in zip(samples, self.strides, self.offsets, strict=True)
        )

    @property
    def size(self) -> int:
        """The least bytes of a buffer that holds the picture."""
        return max(plane.end for plane in self.planes)


def layout_of(buffer: Gst.Buffer, video_info: GstVideo.VideoInfo) -> Layout:
    """The layout of a buffer with these caps: strides and offsets of its GstVideoMeta where it has one.

    Decoders pad rows and planes, and only the meta says so. ValueError for a format that is none of `FORMATS`.
    """
    from posesdk.gst.bindings import GstVideo

    name = video_info.finfo.name
    count = len(FORMATS.get(name, ()))
    place = GstVideo.buffer_get_video_meta(buffer) or video_info
    known, red, blue = GstVideo.VideoColorMatrix.get_Kr_Kb(video_info.colorimetry.matrix)
    return Layout(
        name,
        video_info.width,
        video_info.height,
        tuple(place.stride[:count]),
        tuple(place.offset[:count]),
        luma=(red, blue) if known else BT601,
        full_range=int(video_info.colorimetry.range) == FULL_RANGE,
    )
