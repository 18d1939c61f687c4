import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from posesdk.spec import AdaptationSpec, EdgeBackboneSpec, HeadSpec, ModelSpec
from posesdk_training.losses.adaptation import keep_poses, losses_of_poses
from posesdk_training.losses.matching import match_poses
from posesdk_training.losses.sampling import dynamic_convolution, heatmap_windows, local_context
from posesdk_training.models import adaptation as plain
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import DenseMaps
from posesdk_training.settings.learning import LossConfig

SIDE = 64
FRAMES = ("published", "consistent")
SIGMAS = torch.tensor(ModelSpec(name="any").skeleton.sigmas)


def tiny_model(frame="consistent", **adaptation):
    spec = ModelSpec(
        name="tiny",
        frame=frame,
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4),
        adaptation=AdaptationSpec(
            **{"local_size": 3, "global_size": 9, "reweigh_sigma": 2.0, "message_channels": (8, 8, 8)} | adaptation
        ),
    )
    torch.manual_seed(0)
    return build_model(spec).train()


def random_maps(seed=0, images=2):
    generator = torch.Generator().manual_seed(seed)
    cells = SIDE // 4
    shapes = ((images, 18, cells, cells), (images, 34, cells, cells), (images, 4, cells, cells))
    maps = (torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)
    return DenseMaps(*maps)


def scene(seed=0):
    """Poses (2, 3, 17, 2) of which some fit a person, persons (P, 17, 3) and areas, net px."""
    rng = np.random.default_rng(seed)
    persons = [rng.uniform(5, 59, (count, 17, 3)).astype(np.float32) for count in (2, 1)]
    for points in persons:
        points[..., 2] = 2 * (rng.random(points.shape[:2]) < 0.7)
    poses = rng.uniform(0, 64, (2, 3, 17, 2)).astype(np.float32)
    poses[0, 1] = persons[0][1][:, :2] + rng.normal(0, 2, (17, 2))
    poses[0, 2] = persons[0][0][:, :2] + rng.normal(0, 1, (17, 2))
    areas = [np.full(len(points), 900.0, np.float32) for points in persons]
    return torch.from_numpy(poses), [torch.from_numpy(p) for p in persons], [torch.from_numpy(a) for a in areas]


@pytest.mark.parametrize("frame", FRAMES)
def test_local_context_equals_the_plain_sampler(frame):
    maps, (poses, *_) = random_maps(), scene()
    poses = poses * 1.4 - 12  # some lie outside the input
    meshes = [plain.expansion_mesh(own, SIGMAS, 5) for own in poses]
    index = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = plain.local_context(maps.embedding, torch.cat(meshes), index, frame)
    torch.testing.assert_close(local_context(maps.embedding, meshes, frame=frame), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("frame", FRAMES)
def test_windows_equal_those_of_the_upsampled_maps(frame):
    maps, (poses, *_) = random_maps(), scene()
    poses = poses[0] * 1.4 - 12
    index = torch.zeros(3, dtype=torch.int64)
    upsampled = plain.upsample(maps.heatmaps)
    expected = plain.global_windows(upsampled, poses, index, size=9, frame=frame).flatten(0, 1)
    heatmaps = maps.heatmaps[0, :17].repeat(3, 1, 1)
    found = heatmap_windows(heatmaps, poses.flatten(0, 1), size=9, frame=frame)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_dynamic_convolution_equals_the_plain_one_with_its_gradients():
    generator = torch.Generator().manual_seed(3)
    windows = torch.randn(2, 3, 9, 9, generator=generator, requires_grad=True)
    kernels = torch.randn(2, 3, 5, 5, generator=generator, requires_grad=True)
    direction = torch.randn(2, 3, 9, 9, generator=generator)
    expected = plain.refine(windows, kernels)
    found = dynamic_convolution(windows.flatten(0, 1), kernels.flatten(0, 1) / 25).view_as(expected)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad((found * direction).sum(), (windows, kernels)),
        torch.autograd.grad((expected * direction).sum(), (windows, kernels)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def oks_of(x, y, keypoint, sigma, area):
    distance = (x - keypoint[0]) ** 2 + (y - keypoint[1]) ** 2
    return math.exp(-distance / (2 * area * (2 * sigma) ** 2)) if keypoint[2] > 0 else 0.0


@pytest.mark.parametrize("matching", ["window_max", "clamped_mean"])
def test_poses_match_the_person_with_the_best_reachable_oks(matching):
    poses, persons, areas = scene()
    mesh = plain.expansion_mesh(poses[0], SIGMAS, 3)
    match = match_poses(mesh, persons[0], areas[0], sigmas=SIGMAS, matching=matching)
    for n in range(3):
        oks = np.array(
            [
                [
                    [
                        [oks_of(*mesh[n, r, c, k].tolist(), person[k].tolist(), float(SIGMAS[k]), float(area))
                         for c in range(3)]
                        for r in range(3)
                    ]
                    for k in range(17)
                ]
                for person, area in zip(persons[0], areas[0], strict=True)
            ]
        )  # fmt: skip
        labelled = persons[0][..., 2].numpy() > 0
        if matching == "window_max":
            scores = [oks[g].max((1, 2))[labelled[g]].mean() for g in range(2)]
        else:
            scores = [np.maximum(oks[g], 0.5).mean() for g in range(2)]
        best = int(np.argmax(scores))
        np.testing.assert_allclose(match.oks[n], oks[best], atol=1e-5)
        person_oks = oks[best][labelled[best]].mean(0)
        np.testing.assert_allclose(match.person_oks[n], person_oks, atol=1e-5)
        assert float(match.score[n]) == pytest.approx(max(scores), abs=1e-5)
        assert bool(match.matched[n]) == (person_oks.max() >= 0.5)


def plain_losses(model, maps, kept, config):
    """The formulas of both conventions on every window, weighted or not, through the plain functions."""
    match, spec = kept.match, model.spec.adaptation
    poses = torch.cat(kept.poses)
    index = torch.cat([torch.full((len(own),), i) for i, own in enumerate(kept.poses)])
    raw = model.attraction_maps(maps.embedding, model.expansion_mesh(poses), index)
    windows = model.reweighed_windows(plain.upsample(maps.heatmaps), poses, index)
    refined = plain.refine(windows, raw)
    steps = torch.arange(spec.global_size) - spec.global_size // 2
    x = poses[:, :, 0, None, None] + steps - match.keypoints[:, :, 0, None, None]
    y = poses[:, :, 1, None, None] + steps[:, None] - match.keypoints[:, :, 1, None, None]
    distance = x**2 + y**2
    error = (refined - torch.exp(-distance / (2 * config.refined_target_sigma**2))) ** 2
    middle = spec.local_size // 2
    own = match.matched.float()[:, None]
    number = max(int(match.matched.sum()), 1)
    if config.oks_weight == "gain":
        weight = (match.oks.amax((2, 3)) - match.oks[:, :, middle, middle]) * own
        oks = (weight[..., None, None] * (raw - match.oks) ** 2).mean((1, 2, 3)).sum() / number
        refined_weight = weight[..., None, None]
    else:
        weight = match.oks[:, :, middle, middle] * match.score[:, None] * own
        oks = (weight[..., None, None] * (raw - match.oks) ** 2).sum() / number
        labelled = (match.keypoints[..., 2] > 0).float() * own
        near = distance.sqrt() <= 3 * config.refined_target_sigma
        refined_weight = labelled[..., None, None] * torch.where(near, 1.0, 0.1)
    return {"oks": config.oks_factor * oks, "refined": config.refined_factor * (refined_weight * error).mean()}


PAPER = LossConfig(oks_weight="similarity", gt_matching="clamped_mean", refined_target_sigma=2.0)


@pytest.mark.parametrize("config", [LossConfig(), PAPER], ids=["published", "paper"])
@pytest.mark.parametrize("frame", FRAMES)
def test_losses_and_gradients_follow_the_formulas(config, frame):
    model, (poses, persons, areas) = tiny_model(frame), scene()
    kept = keep_poses(model, poses, persons, areas, config)
    assert [len(own) for own in kept.poses] == [2, 1]  # two fit; the second image keeps one that does not
    gradients, values = [], []
    for compute in (
        lambda maps: losses_of_poses(model, maps, poses, keypoints=persons, areas=areas, config=config),
        lambda maps: plain_losses(model, maps, kept, config),
    ):
        maps = random_maps()
        losses = compute(maps)
        leaves = (maps.heatmap_logits, maps.embedding, *model.joints_mlp.parameters())
        gradients.append(torch.autograd.grad(sum(losses.values()), leaves))
        values.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert min(values[0].values()) > 0
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_batch_without_persons_gives_zeros_that_reach_the_message_passing():
    model, (poses, *_) = tiny_model(), scene()
    maps = random_maps()
    nobody = [torch.zeros(0, 17, 3)] * 2
    losses = losses_of_poses(model, maps, poses, keypoints=nobody, areas=[torch.zeros(0)] * 2, config=LossConfig())
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {"oks": 0.0, "refined": 0.0}
    sum(losses.values()).backward()
    for parameter in model.joints_mlp.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_losses_stay_in_float32_under_autocast():
    model, (poses, persons, areas) = tiny_model(), scene()
    maps = random_maps()
    exact = losses_of_poses(model, maps, poses, keypoints=persons, areas=areas, config=LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        half = DenseMaps(maps.heatmap_logits.bfloat16(), maps.offsets.bfloat16(), maps.embedding.bfloat16())
        losses = losses_of_poses(model, half, poses, keypoints=persons, areas=areas, config=LossConfig())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert float(loss.detach()) == pytest.approx(float(exact[name].detach()), rel=0.05)


def test_refined_window_gives_the_loss_of_a_model_with_that_window():
    poses, persons, areas = scene()
    losses = [
        losses_of_poses(
            tiny_model(global_size=size), random_maps(), poses, keypoints=persons, areas=areas, config=config
        )["refined"].detach()
        for size, config in ((9, LossConfig(refined_window=5)), (5, LossConfig()), (9, LossConfig()))
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]))
    assert float(losses[0]) != pytest.approx(float(losses[2]))


class HostQuestions(TorchDispatchMode):
    """Counts operations that make the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "masked_select", "unique")):
            self.asked.append(name)
        return operation(*args, **(kwargs or {}))


def test_host_waits_twice_for_the_device_however_many_images_there_are():
    """For the poses that are kept, and for their keypoints with a weight."""
    for images in (2, 6):
        model, (poses, persons, areas) = tiny_model(), scene()
        settings = {"keypoints": persons * (images // 2), "areas": areas * (images // 2), "config": LossConfig()}
        with HostQuestions() as host:
            losses_of_poses(model, random_maps(images=images), poses.repeat(images // 2, 1, 1, 1), **settings)
        assert host.asked == ["aten.nonzero.default"] * 2
