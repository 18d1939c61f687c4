"""Dense maps on other cells than the network's own: several resolutions of one view, compared on one grid.

In the consistent frame a map is an image: cells grow and shrink about their edges, and half a px is where their middles
lie. So two cells a side are one of twice the size, and their mean stands for it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from posesdk_training.models.maps import DenseMaps

__all__ = ["on_cells"]


def on_cells(maps: DenseMaps, *, shown: tuple[int, int], cells: tuple[int, int]) -> DenseMaps:
    """The first `shown` (rows, columns) of the maps' cells, as `cells` (rows, columns) of the same extent and shape.

    What the others hold is left out, as are embedding and levels. Heatmaps are resampled before their activation, and
    offsets as the places that they point at: half as many cells take the mean of four, twice as many are bilinear.
    """
    rows, columns = shown
    logits, offsets = (value[:, :, :rows, :columns] for value in (maps.heatmap_logits, maps.offsets))
    if shown != cells:
        logits, offsets = _resized(logits.float(), cells), _offsets_on(offsets.float(), cells)
    return DenseMaps(logits, offsets, logits[:, :0], activation=maps.activation)


def _resized(values: Tensor, cells: tuple[int, int]) -> Tensor:
    return F.interpolate(values, cells, mode="bilinear", align_corners=False)


def _offsets_on(offsets: Tensor, cells: tuple[int, int]) -> Tensor:
    """(B, 2n, h, w) cell minus place, in cells -> (B, 2n, *cells), in those; places stay where they are at borders."""
    batch, _, rows, columns = offsets.shape
    places = _middles((rows, columns), offsets.device) - offsets.reshape(batch, -1, 2, rows, columns)
    moved = cells[0] / rows * _resized(places.flatten(1, 2), cells).reshape(batch, -1, 2, *cells)
    return (_middles(cells, offsets.device) - moved).flatten(1, 2)


def _middles(cells: tuple[int, int], device: torch.device) -> Tensor:
    """(2, h, w) x, y of the middles of h x w cells, from the map's corner."""
    y, x = torch.meshgrid(*(torch.arange(side, device=device) + 0.5 for side in cells), indexing="ij")
    return torch.stack((x, y))
