"""From the raw maps to the initial poses: flip average, upsampling, center NMS, offsets."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PARTNERS", "average_flip", "find_centers", "initial_poses", "upsample"]

STRIDE = 4
PARTNERS = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""The keypoint that each of COCO's 17 is in a mirrored image."""


def average_flip(heatmaps: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 18, h, w) and (1, 34, h, w): the mean of the maps (2, ...) of an image and of its mirror image."""
    partners = list(PARTNERS)
    turned = heatmaps[1:, [*partners, len(partners)]].flip(3)
    height, width = offsets.shape[2:]
    mirrored = offsets[1:].flip(3).view(1, len(partners), 2, height, width)[:, partners]
    mirrored[:, :, 0] *= -1
    return (heatmaps[:1] + turned) / 2, (offsets[:1] + mirrored.flatten(1, 2)) / 2


def upsample(maps: Tensor) -> Tensor:
    """All maps (1, C, h, w) at the size of the network's input, bilinear with half-pixel centers."""
    size = (STRIDE * maps.shape[2], STRIDE * maps.shape[3])
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def find_centers(center_map: Tensor, *, most: int, threshold: float) -> Tensor:
    """x, y and confidence (N, 3) of the `most` highest 3x3 maxima of a map (H, W) that reach `threshold`.

    The highest stands first; where none reaches it, the highest one alone.
    """
    highest = F.max_pool2d(center_map.clamp(min=0)[None], 3, stride=1, padding=1)[0]
    confidence, index = (center_map * (highest == center_map)).flatten().topk(most)
    kept = confidence >= threshold
    if not kept.any():
        kept[0] = True
    x, y = index % center_map.shape[1], index // center_map.shape[1]
    return torch.stack((x.float(), y.float(), confidence), dim=1)[kept]


def initial_poses(centers: Tensor, offsets: Tensor) -> Tensor:
    """(N, 17, 2) net px: each center (N, 3) minus the offsets (34, h, w), in cells, of the cell that it lies in."""
    cells = centers[:, :2] / STRIDE
    column, row = cells.floor().long().unbind(1)
    displacement = offsets[:, row, column].t().reshape(len(centers), -1, 2)  # (N, 17, 2)
    poses: Tensor = (cells[:, None] - displacement) * STRIDE
    return poses
