"""The adaptive offset head computes what its formula says."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from posesdk_training.models.adaptive_head import AdaptBlock, AdaptiveOffsets, deformable_conv3x3

REGULAR = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def read(plane: np.ndarray, y: float, x: float) -> float:
    """Bilinear value of a map (h, w) at a free place; cells outside of it are 0."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def deformed(maps: np.ndarray, offsets: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Deformable convolution as published, cell by cell: y(p) = sum_n w(p_n) x(p + p_n + dp_n).

    `maps` (C, h, w), `offsets` dp (9, 2, h, w) as y, x, `weight` (O, C, 3, 3).
    """
    outputs, channels = weight.shape[:2]
    height, width = maps.shape[1:]
    result = np.zeros((outputs, height, width))
    for i in range(height):
        for j in range(width):
            for n, (row, column) in enumerate(REGULAR):
                y, x = i + row + offsets[n, 0, i, j], j + column + offsets[n, 1, i, j]
                values = [read(maps[c], y, x) for c in range(channels)]
                result[:, i, j] += weight[:, :, row + 1, column + 1] @ values
    return result


def random(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regular_taps(height: int, width: int) -> torch.Tensor:
    """(1, 1, 2, 9, h, w) of an undeformed convolution."""
    taps = torch.tensor(REGULAR, dtype=torch.float64).T[None, None, :, :, None, None]
    return taps.expand(1, 1, 2, 9, height, width)


@pytest.mark.parametrize("size", [(5, 7), (4, 1), (1, 6)])
def test_deformable_convolution_is_its_formula_inside_and_beyond_the_borders(size):
    groups, channels, outputs = 2, 3, 2
    maps = random(1, groups * channels, *size, seed=1)
    offsets = random(1, groups, 9, 2, *size, seed=2, scale=2.5)  # places up to some cells outside
    weight = random(groups * outputs, channels, 3, 3, seed=3)
    taps = offsets.transpose(2, 3) + regular_taps(*size)
    found = deformable_conv3x3(maps, taps, weight)[0].numpy()
    for group in range(groups):
        own, made = slice(group * channels, (group + 1) * channels), slice(group * outputs, (group + 1) * outputs)
        expected = deformed(maps[0, own].numpy(), offsets[0, group].numpy(), weight[made].numpy())
        np.testing.assert_allclose(found[made], expected, atol=1e-10)


def test_regular_taps_give_an_ordinary_convolution():
    maps, weight = random(2, 6, 5, 6, seed=4), random(4, 3, 3, 3, seed=5)
    taps = regular_taps(5, 6).expand(2, 2, 2, 9, 5, 6)
    expected = F.conv2d(maps, weight, padding=1, groups=2)
    torch.testing.assert_close(deformable_conv3x3(maps, taps, weight), expected, atol=1e-10, rtol=0)


def test_gradients_of_the_deformable_convolution_are_those_of_differences():
    maps, weight = random(1, 2, 3, 4, seed=6), random(2, 2, 3, 3, seed=7)
    taps = regular_taps(3, 4) + 0.3 * torch.tanh(random(1, 1, 2, 9, 3, 4, seed=8)) + 0.4  # off the kinks at cells
    tensors = [value.clone().requires_grad_() for value in (maps, taps, weight)]
    assert torch.autograd.gradcheck(deformable_conv3x3, tensors)


def test_taps_are_the_regular_ones_under_a_matrix_and_a_translation():
    block = AdaptBlock(groups=2, channels=3)
    with torch.no_grad():
        block.affine.weight.normal_(std=0.3)
        block.affine.bias.normal_()
    maps = random(1, 6, 4, 5, seed=9).float()
    with torch.no_grad():
        taps, affine = block.taps(maps)[0].numpy(), block.affine(maps)[0].numpy()
    for group in range(2):
        values = affine[6 * group : 6 * group + 6, 2, 3]  # at one cell
        matrix, shift = values[:4].reshape(2, 2), values[4:]
        r = np.array(REGULAR, dtype=np.float32).T
        offsets = matrix @ r - r + shift[:, None]  # as published
        np.testing.assert_allclose(taps[group, :, :, 2, 3], r + offsets, atol=1e-5)


def test_every_tap_is_read_at_the_cell_itself_at_the_start():
    block = AdaptBlock(groups=1, channels=4).eval()
    maps = torch.rand(1, 4, 5, 5)
    with torch.no_grad():
        own = F.conv2d(maps, block.weight.sum((2, 3), keepdim=True)) / math.sqrt(1 + block.norm.eps)
        torch.testing.assert_close(block(maps), F.relu(own + maps))


def test_a_keypoints_tower_sees_its_own_channels_alone_and_serves_all_centers():
    torch.manual_seed(0)
    keypoints, centers, channels = 3, 2, 4
    head = AdaptiveOffsets(keypoints, centers, channels).eval()
    maps = torch.rand(1, keypoints * channels, 6, 6)
    changed = maps.clone()
    changed[:, channels : 2 * channels] += 1  # those of keypoint 1
    with torch.no_grad():
        difference = (head(changed) - head(maps)).abs().amax((0, 2, 3)).reshape(centers, keypoints, 2)
    assert (difference[:, 1] > 0).all()
    assert (difference[:, [0, 2]] == 0).all()


def test_offsets_stand_center_by_center():
    head = AdaptiveOffsets(keypoints=3, centers=2, channels=2).eval()
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.bias.copy_(torch.arange(12.0))  # of one keypoint: both centers' x, y
        offsets = head(torch.rand(1, 6, 2, 2))[0, :, 0, 0]
    assert offsets.tolist() == [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
