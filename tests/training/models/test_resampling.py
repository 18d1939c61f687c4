"""Dense maps of one view at another resolution, on the cells of the deployed one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from posesdk_training.models.maps import DenseMaps
from posesdk_training.models.resampling import on_cells

CELLS = (6, 8)
OTHERS = ((12, 16), (3, 4))


def net_px(cells: tuple[int, int]) -> Tensor:
    """(2, h, w) x, y of the cells' middles in px of a 4x view of `CELLS`, by the rule of the consistent frame.

    Px X of a view of f times the side shows px (X - (f - 1) / 2) / f, and cell u of any map lies at px 4 u + 1.5.
    """
    factor = cells[0] / CELLS[0]
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in cells), indexing="ij")
    return (4 * torch.stack((x, y)) + 1.5 - (factor - 1) / 2) / factor


def maps_of(heatmaps: Tensor, offsets: Tensor) -> DenseMaps:
    return DenseMaps(heatmaps, offsets, heatmaps[:, :0], activation="sigmoid")


@pytest.mark.parametrize("own", OTHERS)
def test_what_lies_somewhere_lies_there_on_the_common_cells(own):
    """Maps whose values are the places themselves: inside of the border nothing moves."""
    maps = maps_of(net_px(own)[None], torch.zeros(1, 4, *own))
    found = on_cells(maps, shown=own, cells=CELLS).heatmap_logits[0]
    inside = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inside], net_px(CELLS)[inside])


@pytest.mark.parametrize("own", OTHERS)
def test_offsets_point_at_the_same_place_from_every_cell_up_to_the_border(own):
    places = torch.tensor([[7.0, 3.5], [-4.0, 21.0], [30.0, 9.0]])  # net px of the 4x view, one of them outside

    def offsets(cells: tuple[int, int]) -> Tensor:
        """(1, 6, h, w) in cells, each `4 CELLS / cells` px of the 4x view wide."""
        px_a_cell = 4 * CELLS[0] / cells[0]
        return ((net_px(cells)[None] - places[..., None, None]) / px_a_cell).flatten(0, 1)[None]

    found = on_cells(maps_of(torch.zeros(1, 5, *own), offsets(own)), shown=own, cells=CELLS).offsets
    torch.testing.assert_close(found, offsets(CELLS), rtol=0, atol=1e-5)


def test_half_as_many_cells_take_the_mean_of_four():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 12, 16)
    found = on_cells(maps_of(logits, torch.zeros(2, 4, 12, 16)), shown=(12, 16), cells=CELLS)
    torch.testing.assert_close(found.heatmap_logits, F.avg_pool2d(logits, 2))
    torch.testing.assert_close(found.heatmaps, F.avg_pool2d(logits, 2).sigmoid())


@pytest.mark.parametrize("cells", [(3, 4), CELLS])
def test_cells_beyond_what_is_shown_have_no_say(cells):
    torch.manual_seed(0)
    logits, offsets = torch.randn(1, 5, 8, 8), torch.randn(1, 4, 8, 8)
    changed = [value.clone() for value in (logits, offsets)]
    for value in changed:
        value[:, :, 3:] = 1e6
        value[:, :, :, 4:] = 1e6
    one, other = (on_cells(maps_of(*pair), shown=(3, 4), cells=cells) for pair in ((logits, offsets), changed))
    assert torch.equal(one.heatmap_logits, other.heatmap_logits)
    assert torch.equal(one.offsets, other.offsets)
    assert one.offsets.shape == (1, 4, *cells)


def test_maps_that_keep_their_cells_stay_as_they_are():
    torch.manual_seed(0)
    maps = maps_of(torch.randn(1, 5, 3, 4), torch.randn(1, 4, 3, 4))
    found = on_cells(maps, shown=(3, 4), cells=(3, 4))
    assert torch.equal(found.heatmap_logits, maps.heatmap_logits)
    assert torch.equal(found.offsets, maps.offsets)
    assert found.activation == "sigmoid"
