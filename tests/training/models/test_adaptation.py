import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from posesdk.spec import AdaptationSpec
from posesdk_training.models.adaptation import (
    AttentiveNorm,
    expansion_mesh,
    global_windows,
    keep_unanswered,
    keypoints_from_mesh,
    keypoints_from_peaks,
    local_context,
    message_passing,
    refine,
    reweighing,
    top_two,
    upsample,
)

FRAMES = ["published", "consistent"]


def attentive_norm_by_numpy(norm: AttentiveNorm, x: np.ndarray) -> np.ndarray:
    """arXiv 2109.03622's norm in evaluation mode, in float64: hard sigmoid of W y, mixed affine pairs, plain BN."""
    x = x.astype(np.float64)
    w, gain, shift = (
        p.detach().double().numpy() for p in (norm.attn_weights.attention[0].weight, norm.weight_, norm.bias_)
    )
    y = x.mean((2, 3)) / np.sqrt(x.var((2, 3), ddof=1) + 1e-3)
    mixture = np.clip(y @ w[:, :, 0, 0].T + 3, 0, 6) / 6
    mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    plain = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
    return (mixture @ gain)[:, :, None, None] * plain + (mixture @ shift)[:, :, None, None]


def random_norm() -> AttentiveNorm:
    torch.manual_seed(0)
    norm = AttentiveNorm(6, 4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def random_poses(count: int, keypoints: int, *, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, keypoints, 2, generator=torch.Generator().manual_seed(4))


def test_attentive_norm_is_its_formula():
    norm, x = random_norm().eval(), torch.randn(5, 6, 7, 7) * 2 + 0.5
    np.testing.assert_allclose(norm(x).detach().numpy(), attentive_norm_by_numpy(norm, x.numpy()), atol=1e-5)


def test_attentive_norm_learns_its_running_statistics_and_all_its_weights():
    norm, x = random_norm(), torch.randn(5, 6, 7, 7) * 2 + 0.5
    before = norm.running_mean.clone()
    norm.train()(x).square().mean().backward()
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * x.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in norm.parameters())


def test_attentive_norm_has_the_published_keys():
    expected = {"weight_", "bias_", "running_mean", "running_var", "num_batches_tracked"}
    assert set(random_norm().state_dict()) == expected | {"attn_weights.attention.0.weight"}


def test_a_persons_attraction_maps_do_not_depend_on_the_others():
    torch.manual_seed(0)
    layers = message_passing(8, 17, AdaptationSpec(message_channels=(8, 6, 4), affine_pairs=3)).eval()
    context = torch.randn(4, 8, 11, 11)
    with torch.no_grad():
        alone = torch.cat([layers(person[None]) for person in context])
        torch.testing.assert_close(layers(context), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("norm", "kind"), [("attentive", AttentiveNorm), ("batch", nn.BatchNorm2d)])
def test_the_middle_norm_follows_the_spec(norm, kind):
    layers = message_passing(8, 17, AdaptationSpec(message_channels=(8, 6, 4), norm=norm))
    assert type(layers[4]) is kind
    assert type(layers[1]) is type(layers[7]) is nn.BatchNorm2d


def test_no_message_channels_give_a_single_1x1_convolution():
    layers = message_passing(17 * 64, 17, AdaptationSpec(message_channels=()))
    assert sum(p.numel() for p in layers.parameters()) == 18_513  # 1088 * 17 + 17


def test_mesh_steps_grow_with_sigma():
    mesh = expansion_mesh(torch.tensor([[[10.0, 20.0], [30.0, 40.0]]]), torch.tensor([0.025, 0.107]), 5)
    assert mesh.shape == (1, 5, 5, 2, 2)
    torch.testing.assert_close(mesh[0, 2, 2], torch.tensor([[10.0, 20.0], [30.0, 40.0]]))
    torch.testing.assert_close(mesh[0, 0, 4, 0], torch.tensor([12.0, 18.0]))  # row 0, column 4: up, right
    torch.testing.assert_close(mesh[0, 0, 4, 1], torch.tensor([30.0 + 2 * 4.28, 40.0 - 2 * 4.28]))


def sample_by_hand(plane: np.ndarray, x: float, y: float, frame: str) -> float:
    """Bilinear value of a plane (h, w) at pixel-index coordinates, in plain Python."""

    def taps(position: float, length: int) -> list[tuple[int, float]]:
        if frame == "consistent":
            position = min(max(position, 0.0), length - 1.0)
            lower = int(position)
            return [(lower, 1 - (position - lower)), (min(lower + 1, length - 1), position - lower)]
        lower = min(max(int(np.floor(position)), 0), length - 1)
        upper = min(lower + 1, length - 1)
        return [(lower, min(max(upper - position, 0), 1)), (upper, min(max(position - lower, 0), 1))]

    rows, columns = taps(y, plane.shape[0]), taps(x, plane.shape[1])
    return sum(float(plane[j, i]) * wy * wx for j, wy in rows for i, wx in columns)


@pytest.mark.parametrize("frame", FRAMES)
def test_local_context_reads_each_persons_own_image(frame):
    embedding = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    poses = random_poses(3, 2, low=-6, high=30)  # cells -1.5 .. 7.5: beyond all four borders
    mesh = expansion_mesh(poses, torch.tensor([0.025, 0.05]), 3)
    image_index = torch.tensor([1, 0, 1])
    context = local_context(embedding, mesh, image_index, frame)
    assert context.shape == (3, 6, 3, 3)
    shift = 0.0 if frame == "published" else 1.5
    for n, k, c, j, i in np.ndindex(3, 2, 3, 3, 3):
        x, y = ((mesh[n, j, i, k] - shift) / 4).double().tolist()
        expected = sample_by_hand(embedding[image_index[n], c].numpy(), x, y, frame)
        assert context[n, k * 3 + c, j, i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("frame", FRAMES)
def test_windows_read_each_keypoints_own_map_and_image(frame):
    maps = torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(2))  # two keypoints and a center
    poses = random_poses(4, 2, low=-4, high=15)
    image_index = torch.tensor([0, 1, 1, 0])
    windows = global_windows(maps, poses, image_index, size=5, frame=frame)
    for n, k, j, i in np.ndindex(4, 2, 5, 5):
        x, y = (poses[n, k] + torch.tensor([i - 2.0, j - 2.0])).double().tolist()
        expected = sample_by_hand(maps[image_index[n], k].numpy(), x, y, frame)
        assert windows[n, k, j, i].item() == pytest.approx(expected, abs=2e-5)


def test_consistent_sampling_is_grid_sample_with_border_padding():
    embedding, poses = torch.randn(1, 4, 8, 9), random_poses(2, 3, low=-10, high=45)
    mesh = expansion_mesh(poses, torch.tensor([0.025, 0.079, 0.107]), 7)
    context = local_context(embedding, mesh, torch.zeros(2, dtype=torch.int64), "consistent")
    grid = (2 * mesh + 1) / torch.tensor([4 * 9, 4 * 8]) - 1  # half-pixel net px to -1..1
    sampled = F.grid_sample(embedding, grid.reshape(1, -1, 1, 2), padding_mode="border", align_corners=False)
    expected = sampled.reshape(4, 2, 7, 7, 3).permute(1, 4, 0, 2, 3).reshape(2, 12, 7, 7)
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=1e-5)


def test_published_sampling_drops_to_zero_at_the_last_cell():
    maps = torch.ones(1, 1, 8, 8)
    index = torch.zeros(3, dtype=torch.int64)
    poses = torch.tensor([[[6.5, 3.0]], [[7.25, 3.0]], [[9.0, 3.0]]])
    values = global_windows(maps, poses, index, size=1, frame="published").flatten()
    torch.testing.assert_close(values, torch.tensor([1.0, 0.25, 1.0]))


def test_upsampled_cell_lies_at_4u_plus_a_half_pixel_center():
    ramp = torch.arange(6.0).expand(1, 1, 4, 6)  # value u in cell u
    row = upsample(ramp)[0, 0, 8]
    torch.testing.assert_close(row[2:-2], (torch.arange(2.0, 22.0) - 1.5) / 4)


def test_refine_is_a_true_convolution_with_zero_border():
    generator = torch.Generator().manual_seed(3)
    windows, kernels = torch.randn(2, 3, 9, 9, generator=generator), torch.randn(2, 3, 5, 5, generator=generator)
    refined = refine(windows, kernels)
    for n, k in np.ndindex(2, 3):
        spectrum = np.fft.rfft2(windows[n, k].numpy(), (13, 13)) * np.fft.rfft2(kernels[n, k].numpy() / 25, (13, 13))
        expected = np.fft.irfft2(spectrum, (13, 13))[2:-2, 2:-2]
        np.testing.assert_allclose(refined[n, k].numpy(), expected, atol=1e-6)


def test_refined_maps_pull_a_gradient_to_heatmaps_embedding_side_and_kernels():
    maps = torch.rand(1, 3, 8, 8, requires_grad=True)
    kernels = torch.rand(2, 2, 3, 3, requires_grad=True)
    poses = random_poses(2, 2, low=0, high=31)
    windows = global_windows(upsample(maps), poses, torch.zeros(2, dtype=torch.int64), size=9, frame="consistent")
    refine(windows, kernels).square().sum().backward()
    assert kernels.grad.abs().min() > 0
    assert maps.grad[:, :2].abs().max() > 0
    assert maps.grad[:, 2].abs().max() == 0  # the center map is in no window


def test_refine_of_no_persons_is_empty():
    assert refine(torch.zeros(0, 17, 9, 9), torch.zeros(0, 17, 5, 5)).shape == (0, 17, 9, 9)


def test_prior_is_a_gaussian_cut_off_where_it_is_negligible():
    prior = reweighing(AdaptationSpec(global_size=17, reweigh_sigma=2.0), torch.device("cpu"))
    assert prior[8, 8] == 1
    assert prior[8, 12].item() == pytest.approx(np.exp(-2))
    assert prior[0, 0] == 0  # exp(-16) = 1.1e-7
    assert prior[0, 8].item() == pytest.approx(np.exp(-8))


@pytest.mark.parametrize("switch", [{"reweigh_sigma": None}, {"prior": "kam"}])
def test_no_reweighing_is_a_prior_of_ones(switch):
    assert torch.all(reweighing(AdaptationSpec(**switch), torch.device("cpu")) == 1)


def test_keypoint_lies_a_quarter_of_the_way_to_the_second_peak():
    refined = torch.zeros(1, 1, 5, 5)
    refined[0, 0, 1, 4], refined[0, 0, 3, 0] = 0.8, 0.4
    keypoints = keypoints_from_peaks(*top_two(refined), torch.tensor([[[100.0, 50.0]]]), 5)
    torch.testing.assert_close(keypoints, torch.tensor([[[100.0 + 3 - 2, 50.0 + 1.5 - 2, 0.7]]]))


def test_partial_adaptation_takes_the_best_mesh_position():
    mesh = expansion_mesh(torch.tensor([[[10.0, 20.0], [30.0, 40.0]]]), torch.tensor([0.025, 0.05]), 3)
    attraction = torch.zeros(1, 2, 3, 3)
    attraction[0, 0, 0, 2], attraction[0, 1, 2, 1] = 0.5, 0.9
    found = keypoints_from_mesh(attraction, mesh)
    torch.testing.assert_close(found, torch.tensor([[[11.0, 19.0, 0.5], [30.0, 42.0, 0.9]]]))


def test_keypoint_without_attraction_stays():
    poses, adapted = torch.zeros(1, 2, 2), torch.ones(1, 2, 3)
    clamped = torch.zeros(1, 2, 3, 3)
    clamped[0, 1, 0, 0] = 0.1
    assert keep_unanswered(poses, adapted, clamped)[..., :2].tolist() == [[[0, 0], [1, 1]]]
