"""From an image to the network's input and back: one uniform scale, zero border, exact inverse.

Net px are pixels of the network's input. Both frames center the image in the input: frame "consistent" with half-pixel
centers, frame "published" with the rounded center and without the half-pixel terms, as published LOGO-CAP does.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.spec import Frame, InputSpec

__all__ = ["Letterbox", "make_letterbox"]

MAX_ASPECT = 16
"""Longest net input, in short sides: a longer image is shrunk to it, so that memory stays bounded."""
AREA_SCALE = 0.5
"""Below this scale bilinear interpolation skips pixels, and frame "consistent" averages areas first."""
WARP_LIMIT = 32766
"""Longest side that OpenCV's warpAffine takes."""


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
        if self.frame == "published":
            return _warp_in_float(image, self.net_size, self.matrix)
        matrix = self.matrix
        if self.scale < AREA_SCALE or max(self.image_size) > WARP_LIMIT:
            image, matrix = self._shrink(image)
        height, width = self.net_size
        net = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return cv2.cvtColor(net, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]

    def to_net(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (..., 2) of the image in net px, float32."""
        moved = np.asarray(points, np.float64) * self.scale + self.matrix[:, 2]
        return moved.astype(np.float32)

    def to_image(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (..., 2) in net px as points of the image, float32; they may lie outside of it."""
        moved = (np.asarray(points, np.float64) - self.matrix[:, 2]) / self.scale
        return moved.astype(np.float32)

    def _shrink(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The image at about net scale, each pixel the mean of its area, and the matrix that is left to apply."""
        height, width = self.image_size
        small = (max(round(height * self.scale), 1), max(round(width * self.scale), 1))
        growth = np.array([width / small[1], height / small[0]])  # image px per px of the small image, x and y
        matrix = self.matrix.copy()
        matrix[:, 2] += self.matrix[:, :2] @ (growth - 1) / 2
        matrix[:, :2] *= growth
        shrunk = cv2.resize(image, (small[1], small[0]), interpolation=cv2.INTER_AREA)
        return shrunk, matrix  # type: ignore[return-value]


def _warp_in_float(
    image: NDArray[np.uint8], net_size: tuple[int, int], matrix: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Scaled and shifted image, bilinear along one axis after the other, 0 outside; BGR in, RGB out."""
    net: NDArray[np.float32] | NDArray[np.uint8] = image[..., ::-1]
    for axis in (0, 1):
        low, fraction = _source_positions(net_size[axis], matrix[1 - axis, 1 - axis], matrix[1 - axis, 2])
        parts = []
        for index, weight in ((low, 1 - fraction), (low + 1, fraction)):
            inside = (index >= 0) & (index < image.shape[axis])
            weight = np.where(inside, weight, np.float32(0)).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            taken = np.take(net, index.clip(0, image.shape[axis] - 1), axis=axis).astype(np.float32)
            parts.append(taken * weight)
        net = parts[0] + parts[1]
    return np.rint(net).clip(0, 255).astype(np.uint8)


def _source_positions(count: int, scale: float, shift: float) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Whole part and fraction of where each of `count` net px lies in the image, along one axis."""
    positions = ((np.arange(count) - shift) / scale).astype(np.float32)
    low = np.floor(positions)
    return low.astype(np.intp), positions - low


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
