"""The networks that look at one pose, and what they see of it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from posesdk.dual_centers import LEVELS, refine_poses
from posesdk.dual_centers import pose_context as pose_context_on_the_device
from posesdk.methods import method_of
from posesdk.spec import EdgeBackboneSpec, ModelSpec, PoseNetsSpec
from posesdk_training.losses.pose_nets import refinement_loss
from posesdk_training.models.build import preset
from posesdk_training.models.maps import DenseMaps
from posesdk_training.models.pose_nets import PoseNets, pose_context, pose_scales

K, PATCH = 17, 5
NETS = PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4)
SPEC = ModelSpec(
    name="tiny", method="dac", centers="dual", pose_nets=NETS, backbone=EdgeBackboneSpec(neck=3, channels=(4, 4, 4, 4))
)
FEATURES = 12


def nets(**changes) -> PoseNets:
    torch.manual_seed(0)
    spec = SPEC.model_copy(update={"pose_nets": NETS.model_copy(update=changes)})
    return PoseNets(spec, FEATURES).eval()


def contexts(count: int) -> torch.Tensor:
    return torch.randn(count, K, FEATURES + PATCH**2 + 2, generator=torch.Generator().manual_seed(count))


def maps_of(heatmaps: torch.Tensor, levels: list[torch.Tensor]) -> DenseMaps:
    batch, _, height, width = heatmaps.shape
    return DenseMaps(heatmaps, torch.zeros(batch, 68, height, width), heatmaps[:, :0], levels=tuple(levels))


def net_px(level: torch.Tensor, stride: int) -> torch.Tensor:
    """(1, 2, h, w): x and y in net px of the middle of every cell."""
    height, width = level.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack((x, y)) * stride + (stride - 1) / 2)[None]


def random_maps(batch: int, height: int, width: int, channels: int = 3) -> DenseMaps:
    torch.manual_seed(1)
    levels = [torch.randn(batch, channels, height >> r, width >> r) for r in range(4)]
    return maps_of(torch.rand(batch, K + 2, height, width), levels)


def test_every_level_is_read_at_the_keypoints_place():
    # Maps that hold their own places: what is read at a point has to be the point.
    levels = [net_px(torch.empty(32 >> r, 48 >> r), 4 << r) for r in range(4)]
    maps = maps_of(net_px(torch.empty(32, 48), 4)[:, :1].repeat(1, K + 2, 1, 1), levels)
    poses = 16 + torch.rand(3, K, 2) * torch.tensor([150.0, 90.0])
    context = pose_context(maps, poses, torch.zeros(3, dtype=torch.int64), SPEC)
    for r in range(4):
        torch.testing.assert_close(context[..., 2 * r : 2 * r + 2], poses, atol=1e-3, rtol=0)
    patch = context[..., 8 : 8 + PATCH**2].reshape(3, K, PATCH, PATCH)
    steps = 4.0 * (torch.arange(PATCH) - PATCH // 2)
    torch.testing.assert_close(patch, (poses[..., :1, None] + steps).expand_as(patch), atol=1e-3, rtol=0)


def test_each_keypoints_patch_is_of_its_own_heatmap():
    heatmaps = torch.arange(K + 2.0)[None, :, None, None].repeat(1, 1, 16, 16)
    maps = maps_of(heatmaps, random_maps(1, 16, 16).levels)
    context = pose_context(maps, torch.full((1, K, 2), 32.0), torch.zeros(1, dtype=torch.int64), SPEC)
    assert torch.equal(context[0, :, 12:37], torch.arange(float(K))[:, None].expand(K, 25))


def test_maps_are_zero_outside():
    maps = random_maps(1, 16, 16)
    poses = torch.full((1, K, 2), -200.0)
    context = pose_context(maps, poses, torch.zeros(1, dtype=torch.int64), SPEC)
    assert context[..., :-2].abs().max() == 0
    on_edge = pose_context(maps, torch.full((1, K, 2), -0.5), torch.zeros(1, dtype=torch.int64), SPEC)
    corner = maps.levels[0][0, :, 0, 0] * 0.25  # half a cell outside on both axes
    torch.testing.assert_close(on_edge[0, 0, :3], corner)


def test_a_keypoints_place_is_in_scales_from_the_mean():
    poses = torch.zeros(2, K, 2)
    poses[0, 0] = torch.tensor([40.0, 90.0])
    poses[1, :, 0] = torch.arange(float(K))  # a line has no area: the scale is the least there is
    torch.testing.assert_close(pose_scales(poses), torch.tensor([60.0, 4.0]))
    place = pose_context(random_maps(1, 16, 16), poses, torch.zeros(2, dtype=torch.int64), SPEC)[..., -2:]
    torch.testing.assert_close(place[0, 0], torch.tensor([40.0, 90.0]) * (16 / 17) / 60)
    torch.testing.assert_close(place[1, :, 0], (torch.arange(float(K)) - 8) / 4)


def test_the_context_is_that_of_the_device():
    maps = random_maps(2, 24, 40)
    poses = torch.rand(9, K, 2) * torch.tensor([220.0, 150.0]) - 30  # over every border
    image_index = torch.tensor([0, 0, 1, 0, 1, 1, 1, 0, 1])
    found = pose_context(maps, poses, image_index, SPEC)
    for image in range(2):
        own = {name: level[image].permute(1, 2, 0).numpy() for name, level in zip(LEVELS, maps.levels, strict=True)}
        own["heatmaps"] = maps.heatmaps[image].numpy()
        mine = image_index == image
        expected = pose_context_on_the_device(poses[mine].numpy(), own, SPEC)
        assert expected.shape[1:] == method_of(SPEC).context_shape(SPEC)[1:]
        np.testing.assert_allclose(found[mine].numpy(), expected, atol=1e-4)


def test_no_gradient_leaves_the_pose_networks():
    maps = random_maps(1, 16, 16)
    levels = [level.requires_grad_() for level in maps.levels]
    poses = (torch.rand(2, K, 2) * 60).requires_grad_()
    context = pose_context(
        maps_of(maps.heatmaps.requires_grad_(), levels), poses, torch.zeros(2, dtype=torch.int64), SPEC
    )
    assert not context.requires_grad


def test_refinement_is_the_identity_at_the_start():
    poses, reading = torch.rand(4, K, 2) * 200, nets()(contexts(4))
    np.testing.assert_array_equal(refine_poses(poses.numpy(), reading.residuals.detach().numpy()), poses.numpy())


def test_device_moves_poses_by_the_residuals_that_are_learned():
    """Residuals without a loss bring a pose onto its target, from a scale of 4 net px on."""
    torch.manual_seed(2)
    for poses in (torch.rand(4, K, 2) * 200, torch.zeros(4, K, 2)):
        steps, scales = torch.randn(4, K, 2), pose_scales(poses)[:, None, None]
        used, targets = torch.ones(4, K, dtype=torch.bool), poses + scales * steps / 10
        assert refinement_loss(steps, poses, targets, used) < 1e-8
        np.testing.assert_allclose(refine_poses(poses.numpy(), steps.numpy()), targets.numpy(), atol=1e-4)


def test_codes_have_length_one_and_confidences_lie_between_zero_and_one():
    reading = nets()(contexts(6))
    torch.testing.assert_close(reading.similarity.norm(dim=1), torch.ones(6))
    assert reading.similarity.shape == (6, NETS.embedding)
    assert reading.confidence.shape == (6,)
    assert ((reading.confidence > 0) & (reading.confidence < 1)).all()
    assert reading.confidence.std() > 0


def test_a_pose_is_read_as_it_is_read_alone():
    module, context = nets(), contexts(5)
    torch.nn.init.normal_(module.refinement.output.weight)
    together, alone = module(context), module(context[3:4])
    for all_of_them, one in zip(together, alone, strict=True):
        torch.testing.assert_close(all_of_them[3:4], one)


def test_refinement_is_one_layer_on_the_poses_code_and_the_keypoint():
    module, context = nets().refinement, contexts(3)
    torch.nn.init.normal_(module.output.weight)
    code = module.encoder(context)
    seen = torch.cat((code, context[..., -2:]), dim=2)
    pose = module.pose(seen.flatten(1))[:, None].expand(-1, K, -1)
    weight = torch.cat((module.from_pose.weight, module.from_keypoint.weight), dim=1)
    hidden = F.relu(F.linear(torch.cat((pose, seen), dim=2), weight, module.from_pose.bias))
    torch.testing.assert_close(module(context), module.output(hidden))


@pytest.mark.parametrize("left_out", ["similarity", "confidence", "refinement"])
def test_a_network_that_the_spec_leaves_out_is_not_there(left_out):
    module = nets(**{left_out: False})
    field = "residuals" if left_out == "refinement" else left_out
    reading = module(contexts(2))
    assert {name for name, value in reading._asdict().items() if value is None} == {field}
    assert not any(key.startswith(left_out) for key in module.state_dict())


def test_paper_size_networks_have_the_designs_parameters():
    with torch.device("meta"):
        module = PoseNets(preset("dac-w32"), 480)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in module.named_children()}
    flat = K * (256 + 25)
    encoder = 480 * 256 + 256 + 2 * 256
    layers = {
        "similarity": [(flat, 896), (896, 256), (256, 128)],
        "confidence": [(flat, 896), (896, 256), (256, 1)],
        "refinement": [(flat + 2 * K, 880), (880, 256), (256 + 281 + 2, 128), (128, 2)],
    }
    assert counts == {n: encoder + sum(i * o + o for i, o in sizes) for n, sizes in layers.items()}
    assert math.isclose(sum(counts.values()) / 1e6, 4.667 + 4.635 + 4.653, abs_tol=1e-3)
