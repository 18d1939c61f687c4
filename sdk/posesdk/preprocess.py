"""From an image to the network's input and back: one uniform scale, zero border, exact inverse.

Net px are pixels of the network's input. Both frames center the image in the input: frame "consistent" with half-pixel
centers, frame "published" with the rounded center and without the half-pixel terms, as published LOGO-CAP does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.spec import Frame, InputSpec
from posesdk.warping import AREA_SCALE, warp_in_float, warp_with_areas

__all__ = ["AREA_SCALE", "Letterbox", "make_letterbox"]

MAX_ASPECT = 16
"""Longest net input, in short sides: a longer image is shrunk to it, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The map between an image and the network's input.

    `image_size` and `net_size` are (height, width); `matrix` (2, 3) float64 takes points of the image to net px, (0, 0)
    the center of the top-left pixel in both; `scale` is net px per image px.
    """

    image_size: tuple[int, int]
    net_size: tuple[int, int]
    scale: float
    matrix: NDArray[np.float64]
    frame: Frame = "consistent"

    def warp(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Network input (H, W, 3) uint8 RGB of an image (h, w, 3) uint8 BGR: bilinear, black border.

        Frame "published" interpolates in float32, which gives what warpAffine of OpenCV 5 gives, with any OpenCV; that
        of OpenCV 4 works in fixed point and is up to 4 of 255 off. Raises ValueError for an image of another size,
        depth or type.
        """
        if image.shape != (*self.image_size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"letterbox: expected an image of shape {(*self.image_size, 3)} uint8, got {image.shape} {image.dtype}"
            )
        warp = warp_in_float if self.frame == "published" else warp_with_areas
        return warp(image, self.net_size, self.matrix)

    def to_net(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (..., 2) of the image in net px, float32."""
        moved = np.asarray(points, np.float64) * self.scale + self.matrix[:, 2]
        return moved.astype(np.float32)

    def to_image(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (..., 2) in net px as points of the image, float32; they may lie outside of it."""
        moved = (np.asarray(points, np.float64) - self.matrix[:, 2]) / self.scale
        return moved.astype(np.float32)


def make_letterbox(image_size: tuple[int, int], input_spec: InputSpec, frame: Frame) -> Letterbox:
    """The letterbox of an image (height, width). Raises ValueError for an image without pixels.

    A net input of more than 16 times its short side is not made; such an image is shrunk until its long side fits.
    """
    height, width = image_size
    if height < 1 or width < 1:
        raise ValueError(f"letterbox: an image needs at least one pixel, got height {height} and width {width}")
    net_size, scale = _net_size(image_size, input_spec, frame)
    matrix = np.array([[scale, 0, 0], [0, scale, 0]], np.float64)
    for axis, (side, net_side) in enumerate([(width, net_size[1]), (height, net_size[0])]):
        if frame == "published":
            matrix[axis, 2] = net_side * 0.5 - scale * int(side / 2 + 0.5)
        else:
            matrix[axis, 2] = (net_side - 1) / 2 - scale * (side - 1) / 2
    matrix.flags.writeable = False
    return Letterbox((height, width), net_size, scale, matrix, frame)


def _net_size(image_size: tuple[int, int], spec: InputSpec, frame: Frame) -> tuple[tuple[int, int], float]:
    """Net size (height, width) and scale."""
    height, width = image_size
    if spec.size is not None:
        return spec.size, min(spec.size[0] / height, spec.size[1] / width)
    short, long = min(image_size), max(image_size)
    if spec.resize == "long":
        net_long = _ceil(spec.side, 1, spec.multiple)
        net_short = _ceil(spec.side * short, long, spec.multiple)
        scale = spec.side / long
    else:
        net_short = _ceil(spec.side, 1, spec.multiple)
        scale = net_short / short
        if frame == "published":
            # As published: up to the next multiple, except that less than one pixel too many is cut off instead.
            net_long = int((net_short / short * long + spec.multiple - 1) // spec.multiple * spec.multiple)
        else:
            net_long = _ceil(net_short * long, short, spec.multiple)
        if net_long > MAX_ASPECT * net_short:
            net_long = MAX_ASPECT * net_short
            scale = net_long / long
    return ((net_long, net_short) if width < height else (net_short, net_long)), scale


def _ceil(numerator: int, denominator: int, multiple: int) -> int:
    """numerator / denominator rounded up to a multiple, in integers: no rounding error can add a whole step."""
    return -(-numerator // (denominator * multiple)) * multiple
