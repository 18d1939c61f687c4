"""Losses of two centers and of the networks that look at a pose, against their formulas."""

import math
import random

import numpy as np
import pytest
import torch

from posesdk.skeleton import COCO_17
from posesdk.spec import EdgeBackboneSpec, HeadSpec, ModelSpec, PoseNetsSpec
from posesdk_training.data.batches import Batch
from posesdk_training.losses.adaptation import adaptation_losses, losses_of_poses
from posesdk_training.losses.dense import dense_losses, focal_heatmap_loss
from posesdk_training.losses.distillation import distilled_heatmap_loss
from posesdk_training.losses.pose_nets import (
    confidence_loss,
    losses_of_samples,
    masked_poses,
    pose_net_losses,
    refinement_loss,
    similarity_loss,
)
from posesdk_training.losses.pose_samples import ImagePoses, choose_pairs, draw_samples, jitter
from posesdk_training.models.build import build_model
from posesdk_training.models.maps import DenseMaps, initial_poses, select_centers, upsample
from posesdk_training.settings.learning import LossConfig

SPEC = ModelSpec(
    name="tiny",
    method="dac",
    centers="dual",
    backbone=EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=6),
    heads=HeadSpec(heatmap_channels=4, offset_channels=4, embedding=4, activation="sigmoid", offset_scale=2.0),
    pose_nets=PoseNetsSpec(encoder=6, hidden=(8, 7), refinement_hidden=(9, 6), refinement_head=5, embedding=4),
)
SIGMAS = [float(sigma) for sigma in COCO_17.sigmas]
CONFIG = LossConfig()


def uniform(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def model(**changes):
    torch.manual_seed(0)
    return build_model(SPEC.model_copy(update=changes)).train()


def person(x, y, *, height=60.0, labelled=range(17)):
    """(17, 3) a pose whose keypoints stand on a spiral around a place."""
    angles = np.arange(17) * 2.4
    radii = height / 2 * np.sqrt((np.arange(17) + 1) / 17)
    points = np.stack([x + radii * np.cos(angles) / 2, y + radii * np.sin(angles), np.zeros(17)], axis=1)
    points[list(labelled), 2] = 2
    return points.astype(np.float32)


def image(persons, candidates=(), masked=None):
    candidates = np.array(candidates, np.float32).reshape(-1, 17, 2)
    keypoints = np.array(persons, np.float32).reshape(-1, 17, 3)
    flags = np.zeros(len(candidates), bool) if masked is None else np.array(masked)
    return ImagePoses(candidates, flags, keypoints, np.full(len(keypoints), 1800.0, np.float32))


def oks_of(pose, person, area):
    """COCO's formula, keypoint by keypoint."""
    values = [
        math.exp(-(math.dist(p, q[:2]) ** 2) / (2 * area * (2 * sigma) ** 2))
        for p, q, sigma in zip(pose.tolist(), person.tolist(), SIGMAS, strict=True)
        if q[2] > 0
    ]
    return sum(values) / len(values)


@pytest.mark.parametrize("loss", ["labels", "teacher"])
def test_keypoints_and_each_center_are_normalised_apart(loss):
    logits, targets = uniform(2, 5, 8, 8, low=-4, high=4), uniform(2, 5, 8, 8, seed=1)
    targets[:, 3] *= 0.1  # a head that is nowhere labelled
    weights = torch.ones(2, 1, 8, 8)
    expected = 0.0
    for part in (slice(0, 3), slice(3, 4), slice(4, 5)):
        total, number = 0.0, 0.0
        for z, t in zip(logits[:, part].flatten().tolist(), targets[:, part].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= (t - p) ** 2 * (t * math.log(p) + (1 - t) * math.log(1 - p))
            number += (t > 0.6) / 3 if loss == "labels" else t**2 / math.pi
        expected += total / max(number, 8 / 3)
    if loss == "labels":
        found = focal_heatmap_loss(logits, targets, weights, centers=2)
    else:
        student, teacher = (DenseMaps(z, z[:, :0], z[:, :0], "sigmoid") for z in (logits, torch.logit(targets)))
        found = distilled_heatmap_loss(student, teacher, centers=2)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def dense_batch(cells=4, **changes):
    fields = {
        "images": torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
        "heatmaps": torch.zeros(1, 19, cells, cells),
        "heatmap_weights": torch.ones(1, 1, cells, cells),
        "offsets": torch.zeros(1, 68, cells, cells),
        "offset_weights": torch.zeros(1, 68, cells, cells),
        "keypoints": [torch.zeros(0, 17, 3)],
        "areas": [torch.zeros(0)],
    }
    return Batch(**fields | changes)


def test_offsets_to_each_center_are_normalised_by_their_own_cells():
    """The head has one element, the body 34; errors of 2 and 1 are linear with so small a beta."""
    weights = torch.zeros(1, 68, 4, 4)
    weights[0, 0, 1, 1] = 0.5
    weights[0, 34:, 2, 2] = 0.25
    offsets = torch.cat([torch.full((1, 34, 4, 4), 2.0), torch.full((1, 34, 4, 4), 1.0)], dim=1)
    maps = DenseMaps(torch.zeros(1, 19, 4, 4), offsets, torch.zeros(1, 0, 4, 4))
    config = LossConfig(offset_beta=1e-6, offset_factor=1.0)
    found = dense_losses(maps, dense_batch(offset_weights=weights), config, centers=2)["offset"]
    assert float(found) == pytest.approx((0.5 * 2 + 0.25 * 1) / 2, rel=1e-4)


def test_adaptation_learns_from_the_poses_of_both_centers():
    net = model(method="logocap")
    persons = [torch.from_numpy(person(30, 30)[None]), torch.from_numpy(person(20, 40)[None])]
    areas = [torch.full((1,), 1800.0)] * 2
    batch = dense_batch(cells=16, keypoints=persons, areas=areas)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    cells = torch.stack([(own[0, :, :2] - 1.5) / 4 for own in persons])  # (2, 17, 2)
    true = torch.stack([columns, rows]) - cells[..., None, None]  # (2, 17, 2, 16, 16)
    offsets = true.flatten(1, 2).repeat(1, 2, 1, 1) + uniform(2, 68, 16, 16, low=-0.5, high=0.5)
    maps = DenseMaps(uniform(2, 19, 16, 16, low=-3), offsets, uniform(2, 4, 16, 16))
    poses = []
    for channel, of_center in ((17, offsets[:, :34]), (18, offsets[:, 34:])):
        centers = select_centers(upsample(maps.heatmaps[:, channel : channel + 1])[:, 0], 30, "consistent")
        poses.append(initial_poses(centers, of_center, "consistent"))
    known = {"keypoints": persons, "areas": areas, "config": CONFIG}
    with torch.no_grad():
        found = adaptation_losses(net, maps, batch, CONFIG)
        expected = losses_of_poses(net, maps, torch.cat(poses, dim=1), **known)
        head_alone = losses_of_poses(net, maps, poses[0], **known)
    for name, value in expected.items():
        assert float(value) > 0
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5)
        assert float(found[name]) != pytest.approx(float(head_alone[name]), rel=1e-3)


def test_similarity_loss_is_the_cosine_embedding_loss_without_margin():
    codes = torch.nn.functional.normalize(uniform(4, 3, low=-1), dim=1)
    pairs, same = torch.tensor([[0, 1], [0, 2], [3, 1]]), torch.tensor([True, False, False])
    cosines = [float(codes[a] @ codes[b]) for a, b in pairs.tolist()]
    expected = (1 - cosines[0] + max(0.0, cosines[1]) + max(0.0, cosines[2])) / 3
    assert float(similarity_loss(codes, pairs, same)) == pytest.approx(expected, abs=1e-6)


def test_refinement_is_asked_for_what_is_missing_in_tenths_of_the_scale():
    """A pose in a box of 40 by 10 has the scale 20: a keypoint 3 px off needs a residual of 1.5."""
    poses = torch.zeros(1, 4, 2)
    poses[0, 1:] = torch.tensor([[40.0, 0.0], [0.0, 10.0], [40.0, 10.0]])
    targets = poses.clone()
    targets[0, 0, 0] += 3
    targets[0, 1, 1] -= 1000  # clipped to one scale, a residual of 10 upwards
    targets[0, 3] += 50  # not used
    used = torch.tensor([[True, True, True, False]])
    zero = torch.zeros(1, 4, 2)
    assert float(refinement_loss(zero, poses, targets, used)) == pytest.approx((1.5**2 + 10**2 + 0) / 3, rel=1e-5)
    right = zero.clone()
    right[0, 0, 0], right[0, 1, 1], right[0, 3] = 1.5, -10, 7
    assert float(refinement_loss(right, poses, targets, used)) == pytest.approx(0, abs=1e-8)


def test_confidence_loss_is_the_mean_squared_error():
    loss = confidence_loss(torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.0]))
    assert float(loss) == pytest.approx((0.25**2 + 1) / 2)


def test_pose_counts_as_masked_from_half_of_its_keypoints_on():
    """Rows of weight 0 below net y 32; of channel 3 everything is unlabelled."""
    weights = torch.ones(2, 19, 16, 16)
    weights[1, :, 8:] = 0
    weights[1, 3] = 0
    poses = uniform(40, 17, 2, low=-20, high=84)
    poses[::3, :, 1] = poses[::3, :, 1].abs().clamp(34, 60)
    index = torch.arange(40) % 2
    expected = []
    for pose, of in zip(poses.tolist(), index.tolist(), strict=True):
        count = sum(
            bool(of) and (y >= 31.5 or k == 3) for k, (x, y) in enumerate(pose) if -0.5 <= x < 63.5 and -0.5 <= y < 63.5
        )
        expected.append(count >= 8.5)
    found = masked_poses(weights, poses, index)
    assert found.tolist() == expected
    assert any(expected)
    assert not all(expected[1::2])
    wide = weights.clone()
    wide[1, 3, :8] = 1
    assert torch.equal(masked_poses(wide[:, :1], poses, index), masked_poses(wide, poses, index))


@pytest.mark.parametrize(("y", "masked"), [(31.4, False), (31.6, True)])
def test_cell_begins_half_a_pixel_before_its_first(y, masked):
    """Cell 8 covers net px 31.5 to 35.5."""
    weights = torch.ones(1, 1, 16, 16)
    weights[:, :, 8:] = 0
    poses = torch.full((1, 17, 2), y)
    assert masked_poses(weights, poses, torch.zeros(1, dtype=torch.int64)).tolist() == [masked]


def test_candidates_that_nobody_has_labelled_are_left_out():
    """Of four: on the person and masked, far and masked, far and not masked, near the person and masked."""
    one = person(60, 60)
    pose = one[:, :2]
    candidates = [pose, pose + 500, pose + 700, pose + 4]
    samples = draw_samples(
        [image([one], candidates, [True, True, False, True])], SPEC, LossConfig(jittered_copies=0), seeds=[(0,)]
    )
    np.testing.assert_array_equal(samples.poses, np.array([candidates[0], candidates[2], candidates[3]]))
    assert samples.oks.tolist() == pytest.approx([1.0, 0.0, oks_of(pose + 4, one, 1800)], abs=1e-6)


def test_poses_are_given_to_the_person_with_the_best_oks():
    people = [person(50, 60, labelled=range(9)), person(75, 62), person(300, 60)]
    rng = np.random.default_rng(3)
    candidates = [people[owner][:, :2] + rng.normal(0, 6, (17, 2)) for owner in (0, 1, 1, 2, 0)]
    samples = draw_samples([image(people, candidates)], SPEC, CONFIG, seeds=[(1, 2)])
    assert len(samples.poses) == 5 + 4 * 3
    for pose, value, own in zip(samples.poses, samples.oks, samples.persons, strict=True):
        similarities = [oks_of(pose, one, 1800) for one in people]
        assert float(value) == pytest.approx(max(similarities), abs=1e-5)
        np.testing.assert_array_equal(own, people[int(np.argmax(similarities))])


def test_image_without_people_teaches_that_its_candidates_are_none():
    seen = image([], [person(40, 40)[:, :2]])
    samples = draw_samples([seen, seen], SPEC, CONFIG, seeds=[(0,), (1,)])
    assert samples.oks.tolist() == [0.0, 0.0]
    assert samples.images.tolist() == [0, 1]
    assert not samples.persons.any()
    assert len(samples.pairs) == 0


def test_unlabelled_keypoints_of_a_copy_come_from_the_candidate_that_fits_best():
    half = person(60, 60, labelled=range(8))
    half[8:, :2] = -1e4  # whatever an annotation has there
    candidate = person(62, 60)[:, :2]
    assert len(draw_samples([image([half])], SPEC, CONFIG, seeds=[(0,)]).poses) == 0
    samples = draw_samples([image([half], [candidate])], SPEC, CONFIG, seeds=[(0,)])
    assert len(samples.poses) == 1 + 4
    assert np.abs(samples.poses - [60, 60]).max() < 200


def test_copies_are_off_by_what_their_oks_allows_and_sometimes_swapped_or_stolen():
    """Over 40,000 copies of two far persons: the deviation of sigma_j = U(0, 2) times the spread is 2 / sqrt(3)."""
    people = np.stack([person(100, 100), person(900, 100)])
    areas = np.array([18.0, 9.0], np.float32)
    number = 20000
    labelled = np.ones((2, 17), bool)
    copies = jitter(np.random.default_rng(0), people[..., :2], labelled, areas, SPEC, copies=number)
    offsets = copies - people[None, ..., :2]
    stolen = np.hypot(offsets[..., 0], offsets[..., 1]) > 600  # (n, 2, 17): the other person is 800 px off
    assert stolen.any(-1).mean() == pytest.approx(0.1, abs=0.01)
    assert stolen.sum(-1).max() == 1
    swapped = copies[:, :, 15, 0] - copies[:, :, 16, 0]
    away = people[0, 15, 0] - people[0, 16, 0]
    assert abs(away) > 12
    assert (np.sign(swapped) != np.sign(away)).mean() == pytest.approx(0.1, abs=0.01)
    nose = offsets[:, :, 0][~stolen[..., 0]].reshape(-1, 2)  # not swapped with anything
    spread = 2 * SIGMAS[0] * np.sqrt(13.5)  # mean of the variances of both
    assert nose.std() == pytest.approx(2 / math.sqrt(3) * spread, rel=0.03)
    for own, area in ((0, 18), (1, 9)):
        size = np.abs(offsets[:, own, 0][~stolen[:, own, 0]]).max()
        assert size < 2 * 5.5 * 2 * SIGMAS[0] * math.sqrt(area)


def test_pairs_are_of_one_image_and_half_of_the_different_ones_the_nearest():
    """60 poses of 12 persons 7 px apart, and some of nobody."""
    rng = np.random.default_rng(0)
    owner = rng.integers(-1, 12, 60)
    base = person(100, 100)[:, :2]
    poses = np.stack([base + np.array([7.0 * who, 0]) + rng.normal(0, 1, (17, 2)) for who in owner]).astype(np.float32)
    pairs, same = choose_pairs(np.random.default_rng(5), poses, owner, sigma=0.134, most=32)
    assert (owner[pairs] >= 0).all()
    assert (same == (owner[pairs[:, 0]] == owner[pairs[:, 1]])).all()
    assert (int(same.sum()), int((~same).sum())) == (32, 32)
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == 64

    def nearness(a, b):
        areas = [np.prod(poses[i].max(0) - poses[i].min(0)) for i in (a, b)]
        spread = 0.134 * math.sqrt(sum(areas) / 2)
        return np.exp(-((poses[a] - poses[b]) ** 2).sum(1) / (2 * spread**2)).mean()

    owned = np.flatnonzero(owner >= 0)
    apart = [nearness(a, b) for i, a in enumerate(owned) for b in owned[i + 1 :] if owner[a] != owner[b]]
    chosen = sorted((nearness(a, b) for a, b in pairs[~same]), reverse=True)
    assert min(apart) < 0.05 < sorted(apart, reverse=True)[15]
    assert chosen[:16] == pytest.approx(sorted(apart, reverse=True)[:16], rel=1e-4)
    assert chosen != pytest.approx(sorted(apart, reverse=True)[:32])


def test_pairs_of_a_batch_stay_within_an_image():
    people = [person(50, 60), person(90, 62)]
    seen = image(people, [one[:, :2] for one in people])
    samples = draw_samples([seen, seen], SPEC, LossConfig(jittered_copies=0), seeds=[(0,), (1,)])
    assert sorted(map(sorted, samples.pairs.tolist())) == [[0, 1], [2, 3]]
    copied = draw_samples([seen, seen], SPEC, CONFIG, seeds=[(0,), (1,)])
    for (a, b), same in zip(copied.pairs, copied.same, strict=True):
        assert copied.images[a] == copied.images[b]
        assert same == np.array_equal(copied.persons[a], copied.persons[b])
    assert set(copied.images[copied.pairs[:, 0]]) == {0, 1}


def test_no_pair_is_called_hard_that_lies_far_apart():
    poses = np.stack([person(100 + 500 * who, 100)[:, :2] for who in range(12)])
    pairs, same = choose_pairs(np.random.default_rng(0), poses, np.arange(12), sigma=0.134, most=8)
    assert not same.any()
    assert len(pairs) == 8
    first = [choose_pairs(np.random.default_rng(s), poses, np.arange(12), sigma=0.134, most=8)[0] for s in (0, 0, 1)]
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).any()


def random_maps(images=2):
    levels = tuple(uniform(images, 6, 16 >> r, 16 >> r, seed=r).requires_grad_() for r in range(4))
    logits = uniform(images, 19, 16, 16, seed=7, low=-6, high=2).requires_grad_()
    return DenseMaps(logits, uniform(images, 68, 16, 16, seed=8, low=-4, high=4), logits[:, :0], "sigmoid", levels)


def people_batch():
    persons = [torch.from_numpy(np.stack([person(30, 30), person(44, 34)])), torch.from_numpy(person(20, 40)[None])]
    return dense_batch(
        cells=16,
        images=torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        heatmap_weights=torch.ones(2, 1, 16, 16),
        keypoints=persons,
        areas=[torch.full((len(own),), 1800.0) for own in persons],
    )


def test_losses_depend_on_the_seeds_of_the_samples_and_on_no_global_state():
    net, maps, batch = model(), random_maps(), people_batch()
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, again, other = (
        {
            name: float(value.detach())
            for name, value in pose_net_losses(net, maps, batch, CONFIG, seeds=[(s, 0), (s, 1)]).items()
        }
        for s in (0, 0, 1)
    )
    assert first == again
    assert all(first[name] != other[name] for name in ("similarity", "confidence", "refinement"))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_gradients_reach_the_pose_networks_alone():
    net, maps = model(), random_maps()
    losses = pose_net_losses(net, maps, people_batch(), CONFIG, seeds=[(0, 0), (0, 1)])
    torch.stack(list(losses.values())).sum().backward()
    assert maps.heatmap_logits.grad is None
    assert all(level.grad is None for level in maps.levels)
    moved = {name.split(".")[0] for name, value in net.pose_nets.named_parameters() if value.grad is not None}
    assert moved == {"similarity", "confidence", "refinement"}


@pytest.mark.parametrize("name", ["similarity", "confidence", "refinement"])
def test_network_that_a_model_has_not_has_no_loss(name):
    net = model(pose_nets=SPEC.pose_nets.model_copy(update={name: False}))
    losses = pose_net_losses(net, random_maps(), people_batch(), CONFIG, seeds=[(0, 0), (0, 1)])
    assert set(losses) == {"similarity", "confidence", "refinement"} - {name}


def test_batch_without_any_sample_costs_nothing():
    net, maps = model(), random_maps(1)
    everything_masked = image([], [person(40, 40)[:, :2]], [True])
    samples = draw_samples([everything_masked], SPEC, CONFIG, seeds=[(0,)])
    assert len(samples.poses) == 0
    losses = losses_of_samples(net, maps, samples, CONFIG)
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(losses, 0.0)
    torch.stack(list(losses.values())).sum().backward()
    assert all(not value.grad.any() for value in net.pose_nets.parameters() if value.grad is not None)


def test_refinement_is_the_identity_before_training():
    """The loss is that of residuals of 0."""
    net, maps = model(), random_maps(1)
    one = person(30, 30)
    samples = draw_samples([image([one], [one[:, :2] + [2, 0]])], SPEC, LossConfig(jittered_copies=0), seeds=[(0,)])
    extent = np.ptp(one[:, :2], axis=0)
    expected = (2 / (0.1 * math.sqrt(extent[0] * extent[1]))) ** 2
    found = losses_of_samples(net, maps, samples, CONFIG)["refinement"]
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def test_pose_networks_learn_the_samples_that_they_are_shown():
    net, maps, batch = model(), random_maps(), people_batch()
    candidates = [person(30, 30), person(33, 31), person(42, 36), person(21, 40)]
    seen = [
        ImagePoses(
            np.stack([one[:, :2] for one in candidates[first:last]]),
            np.zeros(last - first, bool),
            batch.keypoints[index].numpy(),
            batch.areas[index].numpy(),
        )
        for index, (first, last) in enumerate(((0, 3), (3, 4)))
    ]
    samples = draw_samples(seen, SPEC, CONFIG, seeds=[(0,), (1,)])
    optimizer = torch.optim.Adam(net.pose_nets.parameters(), lr=0.01)
    history = []
    for _ in range(200):
        losses = losses_of_samples(net, maps, samples, CONFIG)
        history.append({name: float(value.detach()) for name, value in losses.items()})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    for name, first in history[0].items():
        assert 0 < history[-1][name] < 0.5 * first, name


def test_maps_that_are_no_numbers_give_a_loss_and_no_fault_of_an_index():
    net, maps = model(), random_maps(1)
    broken = DenseMaps(maps.heatmap_logits, maps.offsets * math.nan, maps.embedding, "sigmoid", maps.levels)
    batch = dense_batch(cells=16, keypoints=[torch.from_numpy(person(30, 30)[None])], areas=[torch.ones(1) * 1800])
    assert set(pose_net_losses(net, broken, batch, CONFIG, seeds=[(0,)])) == {"similarity", "confidence", "refinement"}
