import math

import pytest
import torch

from posesdk_training.data.batches import Batch
from posesdk_training.losses.dense import dense_losses, focal_heatmap_loss, mse_heatmap_loss, offset_loss
from posesdk_training.models.logocap import DenseMaps
from posesdk_training.settings.learning import LossConfig


def random(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def cells(*tensors):
    """The same element of each tensor, over all elements."""
    return zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True)


def test_mse_is_the_weighted_mean_over_all_cells():
    heatmaps, targets = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    weights = random(2, 1, 4, 5, seed=2).round()
    expected = sum(w * (p - t) ** 2 for p, t, w in cells(heatmaps, targets, weights.expand(2, 3, 4, 5))) / 120
    assert float(mse_heatmap_loss(heatmaps, targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_weighs_cross_entropy_by_the_squared_error_over_the_peaks():
    logits, weights = random(2, 3, 8, 8, low=-4, high=4), torch.ones(2, 1, 8, 8)
    targets = random(2, 3, 8, 8, seed=1)
    expected = 0.0
    for part in (slice(0, 2), slice(2, 3)):
        loss, peaks = 0.0, 0
        for z, t in cells(logits[:, part], targets[:, part]):
            p = 1 / (1 + math.exp(-z))
            loss -= (t - p) ** 2 * (t * math.log(p) + (1 - t) * math.log(1 - p))
            peaks += t > 0.6
        expected += loss / (max(peaks, 8) / 3)
    assert float(focal_heatmap_loss(logits, targets, weights)) == pytest.approx(expected, rel=1e-4)


def test_masked_cells_do_not_count():
    targets, weights = random(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    weights[..., 2:] = 0
    changed = targets.clone()
    changed[..., 2:] += 5
    for loss in (mse_heatmap_loss, focal_heatmap_loss):
        assert float(loss(changed, targets, weights)) == pytest.approx(float(loss(targets, targets, weights)))


def smooth_l1(error, beta):
    return error**2 / (2 * beta) if abs(error) < beta else abs(error) - beta / 2


@pytest.mark.parametrize("scaled", [False, True])
def test_offset_loss_is_smooth_l1_over_the_weighted_elements(scaled):
    offsets, targets = random(1, 4, 3, 3, low=-2, high=2), random(1, 4, 3, 3, seed=1)
    weights = random(1, 4, 3, 3, seed=2) * (random(1, 4, 3, 3, seed=3) > 0.5)
    beta = 1 / 9
    if scaled:
        total = sum(smooth_l1((p - t) * w, beta) for p, t, w in cells(offsets, targets, weights))
    else:
        total = sum(w * smooth_l1(p - t, beta) for p, t, w in cells(offsets, targets, weights))
    expected = total / int((weights > 0).sum())
    found = offset_loss(offsets, targets, weights, beta=beta, scaled=scaled)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_offset_loss_per_cell_divides_by_the_cells_that_hold_a_center():
    offsets, targets = random(2, 4, 3, 3, low=-2, high=2), torch.zeros(2, 4, 3, 3)
    weights = torch.zeros(2, 4, 3, 3)
    weights[0, :, 1, 1] = 0.5  # four coordinates of one cell
    weights[1, 2, 0, 2] = 0.25  # one of another
    whole = offset_loss(offsets, targets, weights, beta=0.1, scaled=False)
    per_cell = offset_loss(offsets, targets, weights, beta=0.1, scaled=False, per_cell=True)
    assert float(per_cell) == pytest.approx(float(whole) * 5 / 2)


@pytest.mark.parametrize("scaled", [False, True])
def test_offsets_without_any_weight_cost_nothing(scaled):
    maps = random(1, 4, 3, 3).requires_grad_()
    loss = offset_loss(maps, torch.zeros_like(maps), torch.zeros_like(maps), beta=0.1, scaled=scaled)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not maps.grad.any()


@pytest.mark.parametrize("kind", ["mse", "focal"])
def test_dense_losses_carry_their_factors(kind):
    batch = Batch(
        images=torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
        heatmaps=random(1, 18, 4, 4),
        heatmap_weights=torch.ones(1, 1, 4, 4),
        offsets=random(1, 34, 4, 4, seed=1),
        offset_weights=torch.ones(1, 34, 4, 4),
        keypoints=[],
        areas=[],
    )
    maps = DenseMaps(random(1, 18, 4, 4, seed=2), random(1, 34, 4, 4, seed=3), random(1, 4, 4, 4), "sigmoid")
    one = dense_losses(maps, batch, LossConfig(heatmap=kind, heatmap_factor=1, offset_factor=1))
    scaled = dense_losses(maps, batch, LossConfig(heatmap=kind, heatmap_factor=3, offset_factor=0.5))
    assert {name: float(value) for name, value in scaled.items()} == pytest.approx(
        {"heatmap": 3 * float(one["heatmap"]), "offset": 0.5 * float(one["offset"])}
    )
    if kind == "mse":
        heatmaps = torch.sigmoid(maps.heatmap_logits)
        assert float(one["heatmap"]) == pytest.approx(float((heatmaps - batch.heatmaps).square().mean()))


@pytest.mark.parametrize("error", ["absolute", "relative"])
def test_offset_error_is_a_switch_of_its_own(error):
    weights = torch.full((1, 34, 4, 4), 0.25)
    batch = Batch(
        images=torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
        heatmaps=torch.zeros(1, 18, 4, 4),
        heatmap_weights=torch.ones(1, 1, 4, 4),
        offsets=torch.zeros(1, 34, 4, 4),
        offset_weights=weights,
        keypoints=[],
        areas=[],
    )
    maps = DenseMaps(torch.zeros(1, 18, 4, 4), torch.full((1, 34, 4, 4), 2.0), torch.zeros(1, 4, 4, 4))
    losses = dense_losses(maps, batch, LossConfig(offset_error=error, offset_beta=1.0, offset_factor=1.0))
    # An error of 2 is linear in SmoothL1 with beta 1, one of 2 * 0.25 quadratic.
    expected = {"absolute": 0.25 * (2 - 0.5), "relative": 0.5**2 / 2}
    assert float(losses["offset"]) == pytest.approx(expected[error])
