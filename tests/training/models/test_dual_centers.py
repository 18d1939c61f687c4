"""The network of Dual Anatomical Centers: its stems, maps and candidates."""

import numpy as np
import pytest
import torch
from torch import nn

from posesdk.decode import decode_center_offset
from posesdk.methods import method_of, trunk_outputs
from posesdk.skeleton import COCO_17
from posesdk.spec import (
    AdaptationSpec,
    DecodeSpec,
    EdgeBackboneSpec,
    HeadSpec,
    HRNetSpec,
    ModelSpec,
    PoseNetsSpec,
)
from posesdk_training.checkpoint import load_model, save_checkpoint
from posesdk_training.models.backbone import build_backbone
from posesdk_training.models.build import build_model, preset
from posesdk_training.models.dual_centers import DualCenters
from posesdk_training.models.graphs import Adapt, Trunk
from posesdk_training.models.hrnet import HRNet
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.maps import DenseMaps, candidates, flip_average
from posesdk_training.models.stems import deployed_weights, kept_statistics
from posesdk_training.models.synced_norm import SyncedNorm

BRANCHES = ("8x", "4x", "2x")
INPUTS = {"8x": 2.0, "4x": 1.0, "2x": 0.5}
EDGE = EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=6)
HRNET = HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1))
PLAIN = HeadSpec(heatmap_channels=4, offset_channels=4, activation="sigmoid", offset_scale=2.0)
ADAPTIVE = HeadSpec(heatmap_channels=4, heatmap_blocks=1, offsets="adaptive", adaptive_channels=2)
NETS = PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4)


def tiny_spec(**changes) -> ModelSpec:
    spec = ModelSpec(name="tiny", method="dac", centers="dual", backbone=EDGE, heads=PLAIN, pose_nets=NETS)
    return spec.model_copy(update=changes)


def tiny(branches=(), **changes) -> DualCenters:
    torch.manual_seed(0)
    model = build_model(tiny_spec(**changes), branches)
    assert isinstance(model, DualCenters)
    return model


@pytest.mark.parametrize(("name", "side"), [("dac-w32", 128), ("dac-w48", 160), ("dac-nano", 80)])
def test_every_stem_takes_its_input_to_one_grid(name, side):
    spec = preset(name)
    with torch.device("meta"):
        backbone = build_backbone(spec.backbone, BRANCHES).eval()
        for branch, scale in INPUTS.items():
            inputs = round(scale * spec.input.side)
            levels = backbone.levels(torch.empty(1, 3, inputs, inputs), branch)
            shapes = [tuple(level.shape[1:]) for level in levels]
            assert shapes == [(c, side >> r, side >> r) for r, c in enumerate(backbone.level_channels)]
            assert backbone.merge(levels).shape == (1, backbone.out_channels, side, side)


@pytest.mark.parametrize("backbone", [EDGE, HRNET], ids=["edge", "hrnet"])
def test_stems_are_there_only_where_branches_are_trained(backbone):
    deployed, training = tiny(backbone=backbone), tiny(BRANCHES, backbone=backbone)
    extra = training.state_dict().keys() - deployed.state_dict().keys()
    assert extra
    assert all(key.startswith(("backbone.stems.8x.", "backbone.stems.2x.")) for key in extra)
    assert deployed_weights(training.state_dict()).keys() == deployed.state_dict().keys()


@pytest.mark.parametrize("backbone", [EDGE, HRNET], ids=["edge", "hrnet"])
def test_stems_start_from_the_deployed_one(backbone):
    model = tiny(BRANCHES, backbone=backbone).backbone
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(1)  # as if it had been loaded
        for value in model.stems.parameters():
            value.zero_()
    model.start_stems()
    first = model.conv1 if isinstance(model, HRNet) else model.stem[0]
    norm = model.bn1 if isinstance(model, HRNet) else model.stem[1]
    for stem in model.stems.values():
        assert torch.equal(stem[0].weight, first.weight)
        assert torch.equal(stem[1].running_var, norm.running_var)
    if isinstance(model, HRNet):
        for layer in (model.stems["2x"][3], model.stems["8x"][3], model.stems["8x"][6]):
            assert torch.equal(layer.weight, model.conv2.weight)


@pytest.mark.parametrize("kind", [tiny_spec(heads=ADAPTIVE), tiny_spec(method="logocap", backbone=HRNET)])
def test_branches_that_are_not_deployed_leave_the_statistics_as_they_are(kind):
    torch.manual_seed(0)
    model = build_model(kind, BRANCHES).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    for branch in ("8x", "2x"):
        side = int(64 * INPUTS[branch])
        model(torch.randn(2, 3, side, side), branch)
    changed = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("backbone.stems.") for name in changed)
    model(torch.randn(2, 3, 64, 64))
    assert not torch.equal(model.get_buffer("transition_cls.1.running_mean"), before["transition_cls.1.running_mean"])


def test_a_norm_over_several_processes_keeps_its_statistics_too():
    norm = SyncedNorm(3)
    with kept_statistics(nn.Sequential(norm), "2x"):
        norm._follow(torch.ones(3), torch.full((3,), 5.0))
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == 0
    norm._follow(torch.ones(3), torch.full((3,), 5.0))
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 0.1))


def test_a_branch_standardises_by_its_own_batch():
    model = tiny(BRANCHES).train()
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.fill_(1e6)  # would empty every map
        assert model(torch.randn(2, 3, 128, 128), "8x").levels[0].std() > 0.1


@pytest.mark.parametrize("heads", [PLAIN, ADAPTIVE], ids=["plain", "adaptive"])
def test_dense_maps_hold_both_centers(heads):
    with torch.no_grad():
        maps = tiny(heads=heads).eval()(torch.randn(2, 3, 64, 96))
    assert maps.heatmaps.shape == (2, 19, 16, 24)
    assert maps.offsets.shape == (2, 68, 16, 24)
    assert [tuple(level.shape) for level in maps.levels] == [(2, 6, 16 >> r, 24 >> r) for r in range(4)]


def test_paper_size_heads_start_as_published():
    torch.manual_seed(0)
    model = tiny(heads=ADAPTIVE)
    weights = [model.final_layer_cls[-1].weight, model.transition_reg[0].weight, model.final_layer_reg.output.weight]
    assert all(0.0005 < weight.std().item() < 0.002 for weight in weights)
    assert all(block.affine.weight.abs().max() == 0 for block in model.final_layer_reg.blocks)


def test_every_parameter_receives_a_gradient():
    model = tiny(heads=ADAPTIVE).train()
    maps = model(torch.randn(2, 3, 64, 64))
    with torch.no_grad():
        found = model.candidates(maps)
        for block in model.final_layer_reg.blocks:
            block.affine.weight.normal_(std=0.1)
    nn.init.normal_(model.pose_nets.refinement.output.weight)
    maps = model(torch.randn(2, 3, 64, 64))
    reading = model.read_poses(maps, found.poses, found.image_index)
    terms = [maps.heatmaps, maps.offsets, *reading]
    sum(term.square().sum() for term in terms[:2]).backward(retain_graph=True)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None} == {"pose_nets"}
    model.zero_grad(set_to_none=True)
    (reading.similarity[:, 0].sum() + reading.confidence.sum() + reading.residuals.square().sum()).backward()
    without = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert "pose_nets" not in without  # and nothing but them learns from what they say
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"pose_nets"}


def test_another_frame_is_refused():
    with pytest.raises(ValueError, match="consistent"):
        build_model(tiny_spec(frame="published"))


def test_a_peak_with_zero_offsets_is_a_pose_at_the_middle_of_its_cell():
    heatmaps = torch.zeros(1, 19, 16, 24)
    heatmaps[0, 18, 5, 9] = 0.8  # the body's center
    maps = DenseMaps(heatmaps, torch.zeros(1, 68, 16, 24), heatmaps[:, :0])
    found = candidates(maps, tiny_spec())
    assert set(found.kinds.tolist()) == {1}  # the four net px around the middle are equally high
    assert torch.equal(found.poses, torch.tensor([4 * 9 + 1.5, 4 * 5 + 1.5]).expand(len(found.kinds), 17, 2))


def random_maps(batch: int) -> DenseMaps:
    torch.manual_seed(3)
    heatmaps = torch.rand(batch, 19, 24, 40)
    heatmaps[:, 17:] *= nn.functional.pad(torch.ones(22, 38), (1, 1, 1, 1))  # equal pixels at the border are a tie
    return DenseMaps(heatmaps, 6 * torch.randn(batch, 68, 24, 40), heatmaps[:, :0])


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0], ids=["many", "few", "the best alone"])
def test_candidates_are_those_of_the_device(threshold):
    spec, maps = tiny_spec(decode=DecodeSpec(max_people=12, center_threshold=threshold)), random_maps(3)
    found = candidates(maps, spec)
    for image in range(3):
        mine = found.image_index == image
        expected = decode_center_offset(maps.heatmaps[image].numpy(), maps.offsets[image].numpy(), spec)
        assert len(expected) == int(mine.sum())
        assert threshold == 1.0 or len(set(expected.kinds.tolist())) == 2
        np.testing.assert_array_equal(found.kinds[mine].numpy(), expected.kinds)
        np.testing.assert_allclose(found.poses[mine].numpy(), expected.keypoints, atol=1e-4)
        np.testing.assert_allclose(found.centers[mine, 2].numpy(), expected.scores, atol=1e-6)
        np.testing.assert_array_equal(found.centers[mine, :2].numpy(), expected.centers)


def make_symmetric(model: DualCenters) -> None:
    """Lets a network with plain heads give for a mirror image the mirrored maps: no other kernels can, in this frame.

    A stride-2 layer sees cells 2u-1, 2u and 2u+1, and of these 2u and 2u+1 are each other's mirror images.
    """
    partners = torch.from_numpy(COCO_17.flip_indices.copy()).long()
    with torch.no_grad():
        for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)):
            if layer.stride == (2, 2):
                layer.weight[..., 0] = 0
                layer.weight[..., 2] = layer.weight[..., 1]
            else:
                layer.weight.add_(layer.weight.flip(3).clone()).div_(2)
        for value in (model.final_layer_cls.weight, model.final_layer_cls.bias):
            value[:17] = (value[:17] + value[partners]) / 2
        for value in (model.final_layer_reg.weight, model.final_layer_reg.bias):
            pairs = value.reshape(2, 17, 2, -1)
            mirrored = pairs[:, partners] * torch.tensor([-1.0, 1.0])[:, None]
            value.copy_(((pairs + mirrored) / 2).reshape(value.shape))


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_mirror_image_gives_the_mirrored_maps_without_any_shift(branch):
    model = tiny(BRANCHES, backbone=HRNET).eval()
    for layer in (m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(model.final_layer_reg.weight)
    make_symmetric(model)
    height, width = int(64 * INPUTS[branch]), int(96 * INPUTS[branch])
    images = torch.randn(1, 3, height, width)
    with torch.no_grad():
        maps, mirrored = model(images, branch), model(images.flip(3), branch)
    assert maps.offsets.std() > 0.1
    assert (mirrored.heatmaps - maps.heatmaps).abs().max() > 1e-3  # the image itself is not symmetric
    averaged = flip_average(maps, mirrored, COCO_17)
    torch.testing.assert_close(averaged.heatmaps, maps.heatmaps, atol=1e-6, rtol=0)
    scale = float(maps.offsets.abs().max())
    torch.testing.assert_close(averaged.offsets / scale, maps.offsets / scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("spec", [tiny_spec(), tiny_spec(method="logocap"), tiny_spec(heads=ADAPTIVE)])
def test_graphs_give_what_the_device_expects(spec):
    torch.manual_seed(0)
    model = build_model(spec).eval()
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        outputs = Trunk(model)(image)
        context = torch.randn(3, *(side or 1 for side in method_of(spec).context_shape(spec)[1:]))
        answers = Adapt(model)(context)
    wanted = trunk_outputs(spec)
    assert len(outputs) == len(wanted)
    for value, shape in zip(outputs, wanted.values(), strict=True):
        assert all(side in (None, found) for side, found in zip(shape, value.shape, strict=True))
    answers = (answers,) if isinstance(answers, torch.Tensor) else answers
    for value, shape in zip(answers, method_of(spec).adapt_outputs(spec).values(), strict=True):
        assert value.shape == (3, *shape[1:])


def test_the_trunk_normalises_and_puts_channels_last():
    model = tiny().eval()
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    source = model.spec.input
    pixels = (image.permute(0, 3, 1, 2) / 255 - torch.tensor(source.mean)[:, None, None]) / torch.tensor(source.std)[
        :, None, None
    ]
    with torch.no_grad():
        maps, outputs = model(pixels), Trunk(model)(image)
    torch.testing.assert_close(outputs[0], maps.heatmaps)
    torch.testing.assert_close(outputs[5].permute(0, 3, 1, 2), maps.levels[3])


def test_the_per_person_graph_holds_the_networks_of_the_spec_alone():
    spec = tiny_spec(pose_nets=NETS.model_copy(update={"similarity": False, "refinement": False}))
    model = build_model(spec).eval()
    context = torch.randn(2, *(side or 1 for side in method_of(spec).context_shape(spec)[1:]))
    (confidence,) = Adapt(model)(context)
    assert confidence.shape == (2,)
    assert list(method_of(spec).adapt_outputs(spec)) == ["confidence"]


def test_logocap_adapts_the_poses_of_both_centers():
    torch.manual_seed(0)
    adaptation = AdaptationSpec(local_size=5, global_size=9, message_channels=(4, 4, 4), affine_pairs=2)
    spec = tiny_spec(method="logocap", adaptation=adaptation, decode=DecodeSpec(flip_test=True))
    model = build_model(spec).eval()
    assert isinstance(model, LogoCap)
    nn.init.zeros_(model.final_layer_cls.bias)
    nn.init.normal_(model.final_layer_cls.weight)
    images = torch.randn(2, 3, 64, 96)
    found = model.detect(images)
    with torch.no_grad():
        maps = flip_average(model(images), model(images.flip(3)), spec.skeleton)
    expected = candidates(maps, spec)
    assert set(expected.kinds.tolist()) == {0, 1}
    torch.testing.assert_close(found.initial_poses, expected.poses)
    assert found.keypoints.shape == (len(expected.kinds), 17, 3)


def test_dense_weights_of_one_method_fit_the_other():
    dac, logocap = tiny().state_dict(), build_model(tiny_spec(method="logocap")).state_dict()
    dense = {key: value.shape for key, value in dac.items() if not key.startswith("pose_nets.")}
    assert dense == {key: logocap[key].shape for key in dense}


def test_a_run_with_branches_leaves_a_checkpoint_that_is_loaded_without_them(tmp_path):
    model = tiny(BRANCHES).eval()
    save_checkpoint(tmp_path / "model.safetensors", deployed_weights(model.state_dict()), model.spec)
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).offsets, model(images).offsets)
