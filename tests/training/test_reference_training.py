"""Targets, losses and gradients against one training step recorded from the published implementation."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from posesdk.spec import AdaptationSpec, HeadSpec, HRNetSpec, ModelSpec
from posesdk_training.data.batches import Batch
from posesdk_training.data.targets import GridPersons, encode_dense, net_to_cells
from posesdk_training.losses.adaptation import adaptation_losses, keep_poses, losses_of_poses
from posesdk_training.losses.dense import dense_losses
from posesdk_training.models.build import build_model
from posesdk_training.settings.learning import LossConfig
from posesdk_training.settings.samples import TargetConfig

IMAGES = (0, 1)
CELLS = (32, 32)
RUNS = ("A", "B")


def tiny_model(weights):
    spec = ModelSpec(
        name="tiny",
        frame="published",
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        adaptation=AdaptationSpec(message_channels=(16, 12, 8), affine_pairs=5),
    )
    model = build_model(spec)
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.train()


def normalised_images(arrays):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (torch.from_numpy(arrays["images_u8_nchw_rgb"]).float() / 255 - mean) / std


def persons_in_net_px(arrays):
    """Annotations of the adaptation branch: recorded in orig px, moved here as the photo was."""
    keypoints, areas = [], []
    for image in IMAGES:
        matrix = arrays[f"meta{image}/transform"].astype(np.float64)
        points = arrays[f"meta{image}/kpts_orig"].astype(np.float64)
        points[..., :2] = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
        if arrays[f"meta{image}/hflip"]:
            points[..., 0] = 127 - points[..., 0]
        scale = abs(np.linalg.det(matrix[:2, :2]))
        keypoints.append(torch.from_numpy(points).float())
        areas.append(torch.from_numpy(arrays[f"meta{image}/areas_orig"] * scale).float())
    return keypoints, areas


def recorded_batch(arrays):
    return Batch(
        torch.from_numpy(arrays["images_u8_nchw_rgb"]),
        torch.from_numpy(arrays["target/heatmaps.t"]),
        torch.from_numpy(arrays["target/heatmaps.w"]),
        torch.from_numpy(arrays["target/offsets.t"]),
        torch.from_numpy(arrays["target/offsets.w"]),
        *persons_in_net_px(arrays),
    )


def encode(arrays, image):
    joints, areas = arrays[f"meta{image}/joints_out"], arrays[f"meta{image}/area_out"][:, 0]
    centers = joints[:, 17]
    cells = np.trunc(centers[:, :2]).astype(np.int64)
    persons = GridPersons(joints[:, :17], centers[:, None], areas, np.sqrt(areas) / 4, cells[:, None])
    return encode_dense(persons, CELLS, TargetConfig())


@dataclass
class Step:
    losses: dict[str, float]
    gradients: dict[str, float]


@pytest.fixture(scope="module")
def arrays(reference):
    return reference("tiny_train")


@pytest.fixture(scope="module")
def weights(reference):
    return reference("tiny_weights_fp16")


@pytest.fixture(scope="module", params=RUNS)
def step(request, arrays, weights):
    """One training step; run A decodes its own poses, run B starts from recorded poses near the persons."""
    model, batch, config = tiny_model(weights), recorded_batch(arrays), LossConfig()
    maps = model(normalised_images(arrays))
    losses = dense_losses(maps, batch, config)
    if request.param == "A":
        losses |= adaptation_losses(model, maps, batch, config)
    else:
        poses = torch.from_numpy(arrays["B/dec/poses"])
        losses |= losses_of_poses(model, maps, poses, keypoints=batch.keypoints, areas=batch.areas, config=config)
    sum(losses.values()).backward()
    gradients = {name: float(value.grad.norm()) for name, value in model.named_parameters()}
    return request.param, Step({name: float(value.detach()) for name, value in losses.items()}, gradients)


@pytest.mark.parametrize("image", IMAGES)
def test_keypoints_on_the_map_grid(arrays, image):
    """Image 0 is flipped: the published grid is mirrored as w - 1 - u, 3 net px from where the pixels go."""
    keypoints, _ = persons_in_net_px(arrays)
    expected = arrays[f"meta{image}/joints_out"][: len(keypoints[image]), :17]
    flipped = bool(arrays[f"meta{image}/hflip"])
    found = net_to_cells(keypoints[image][..., :2].numpy(), consistent=False, flipped=flipped)
    labelled = expected[..., 2] > 0
    np.testing.assert_allclose(found[labelled], expected[labelled, :2], atol=1e-4)


@pytest.mark.parametrize("image", IMAGES)
def test_heatmap_targets(arrays, image):
    targets = encode(arrays, image)
    np.testing.assert_allclose(targets.heatmaps, arrays["target/heatmaps.t"][image], atol=1e-5)


@pytest.mark.parametrize(("image", "masked_cells"), [(0, 199), (1, 580)])
def test_heatmap_weights_outside_the_mask(arrays, image, masked_cells):
    expected = arrays["target/heatmaps.w"][image]
    seen = expected > 0
    assert int((~seen).sum()) == masked_cells
    np.testing.assert_allclose(encode(arrays, image).heatmap_weights[seen], expected[seen], atol=1e-6)


@pytest.mark.parametrize("image", IMAGES)
def test_offset_targets(arrays, image):
    targets = encode(arrays, image)
    np.testing.assert_allclose(targets.offsets, arrays["target/offsets.t"][image], atol=1e-5)
    np.testing.assert_allclose(targets.offset_weights, arrays["target/offsets.w"][image], atol=1e-7)


def test_kept_poses_and_their_oks(arrays, weights):
    model = tiny_model(weights)
    poses = torch.from_numpy(arrays["B/dec/poses"])
    kept = keep_poses(model, poses, *persons_in_net_px(arrays), LossConfig())
    expected = arrays["B/gt/oks.joints"]
    assert sum(len(own) for own in kept.poses) == 18
    np.testing.assert_allclose(kept.match.person_oks, arrays["B/gt/oks.person"], atol=1e-5)
    np.testing.assert_allclose(kept.match.oks[: len(expected)], expected, atol=1e-5)


def test_losses(arrays, step):
    run, found = step
    published = {"heatmap": "heatmaps", "offset": "offsets", "oks": "oks", "refined": "hm"}
    expected = {name: float(arrays[f"{run}/loss/loss.{theirs}"]) for name, theirs in published.items()}
    assert found.losses == pytest.approx(expected, rel=1e-5)
    assert sum(found.losses.values()) == pytest.approx(float(arrays[f"{run}/loss/total"]), rel=1e-5)


def test_gradient_norms(arrays, step):
    run, found = step
    expected = dict(zip(arrays["grad_norm_names"].tolist(), arrays[f"{run}/grad_norms"].tolist(), strict=True))
    assert found.gradients.keys() == expected.keys()
    errors = {name: abs(found.gradients[name] - norm) / max(norm, 1e-3) for name, norm in expected.items()}
    assert max(errors.values()) < 1e-4, max(errors, key=lambda name: errors[name])
