"""Affine sampling of many crops from one flat buffer of pixels."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cell_mask", "sample_pixels"]

PIECE = 2**23
"""Net px that are sampled at once; each takes nine times the memory of its result meanwhile."""


def sample_pixels(
    pixels: Tensor, sources: Tensor, matrices: Tensor, *, size: int, border: tuple[int, int, int]
) -> Tensor:
    """(B, S, S, 4) float32 R, G, B, mask in 0..255: bilinear, with `border` (B, G, R) outside and no mask there.

    `pixels` (n,) int32 of four bytes each; `sources` (B, 3) int64 start, width and height of each crop's photo in it;
    `matrices` (B, 2, 3) net px to that photo's px.
    """
    result = torch.zeros(len(sources), size, size, 4, device=pixels.device)
    number = max(1, PIECE // size**2)
    pieces = (torch.split(value, number) for value in (sources, matrices, result))
    for of_photo, to_photo, piece in zip(*pieces, strict=True):
        _sample(pixels, of_photo, to_photo, result=piece, border=border)
    return result


def _sample(pixels: Tensor, sources: Tensor, matrices: Tensor, *, result: Tensor, border: tuple[int, int, int]) -> None:
    """Adds to `result` (b, S, S, 4) what `sample_pixels` tells of."""
    x, y = _positions(matrices, result.shape[1])
    start, width, height = (column[:, None, None] for column in sources.unbind(1))
    left, across, near_x, far_x = _taps(x, width)
    top, down, near_y, far_y = _taps(y, height)
    index = torch.addcmul(start + left, top, width)  # of the upper left pixel
    for step, weight in (
        (None, near_y * near_x),
        (across, near_y * far_x),
        (down * width, far_y * near_x),
        (torch.addcmul(across, down, width), far_y * far_x),
    ):
        tap = index if step is None else index + step
        values = pixels.gather(0, tap.view(-1)).view(torch.uint8).view(*x.shape, 4)
        result.addcmul_(values.float(), weight[..., None])
    if any(border):
        outside = torch.tensor([*reversed(border), 0], dtype=torch.float32).to(pixels.device, non_blocking=True)
        inside = (near_x + far_x) * (near_y + far_y)
        result.addcmul_((1 - inside)[..., None], outside)


def _positions(matrices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """x and y (B, S, S) of every net px in the photo."""
    steps = torch.arange(size, device=matrices.device, dtype=torch.float32)
    m = matrices[:, :, :, None, None]  # (B, 2, 3, 1, 1)
    along_row, along_column = steps[None, None, None, :], steps[None, None, :, None]
    positions = m[:, :, 0] * along_row + m[:, :, 1] * along_column + m[:, :, 2]  # (B, 2, S, S)
    x, y = positions.unbind(1)
    return x, y


def _taps(positions: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the two pixels beside each position: the first one and the step to the second, both kept in the photo (whole
    numbers), and the weights of both, 0 outside of the photo."""
    lower = positions.floor()
    fraction = positions - lower
    last = (length - 1).float()
    upper = lower + 1
    first, second = (place.clamp(min=0).minimum(last) for place in (lower, upper))
    near, far = (1 - fraction) * (first == lower), fraction * (second == upper)
    return first.to(torch.int64), (second - first).to(torch.int64), near, far


def cell_mask(masks: Tensor, stride: int) -> Tensor:
    """(B, h, w) bool, true where any of a cell's net px (B, S, S) lies in a region not to be looked at."""
    return F.max_pool2d(masks[:, None], stride)[:, 0] > 127.5
