from pathlib import Path

import numpy as np
import pytest
import torch

from posesdk.skeleton import COCO_17
from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, ModelSpec
from posesdk_training.models.adaptation import local_context, refine, top_two, upsample
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import DenseMaps, LogoCap, flip_average, initial_poses, select_centers

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
EDGE = EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8)


def tiny(**changes) -> LogoCap:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny",
        backbone=EDGE,
        heads=HeadSpec(heatmap_channels=4, offset_channels=4, embedding=2, activation="sigmoid"),
        decode=DecodeSpec(max_people=5),
        adaptation=AdaptationSpec(
            local_size=5, global_size=9, reweigh_sigma=2.0, message_channels=(4, 4, 4), affine_pairs=2
        ),
    )
    return build_model(spec.model_copy(update=changes)).eval()


@pytest.fixture(params=["consistent", "published"])
def vectors(request):
    """Recorded stages, the spec, and a network whose message passing answers with the recorded attraction maps."""
    with np.load(VECTORS / f"decode_{request.param}.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    spec = ModelSpec.model_validate_json(str(arrays.pop("spec")))
    return spec, {name: torch.from_numpy(value) for name, value in arrays.items()}


class Recorded(torch.nn.Module):
    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        assert context.shape[0] == self.maps.shape[0]
        return self.maps


def replayed(spec: ModelSpec, arrays: dict[str, torch.Tensor]) -> tuple[LogoCap, DenseMaps]:
    model = build_model(spec).eval()
    model.joints_mlp = Recorded(arrays["kam_raw"])
    return model, DenseMaps(arrays["heatmaps"], arrays["offsets"], arrays["embedding"])


def test_decode_gives_the_recorded_poses(vectors):
    spec, arrays = vectors
    model, maps = replayed(spec, arrays)
    found = model.decode(maps)
    torch.testing.assert_close(found.centers, arrays["centers"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.initial_poses, arrays["initial_poses"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.keypoints[..., :2], arrays["final_poses_all"][..., :2], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.keypoints[..., 2], arrays["final_poses_all"][..., 2], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.scores, arrays["scores_all"], atol=1e-6, rtol=0)


def test_stages_of_the_adaptation_are_the_recorded_ones(vectors):
    spec, arrays = vectors
    model, maps = replayed(spec, arrays)
    poses, image_index = arrays["initial_poses"], torch.zeros(len(arrays["centers"]), dtype=torch.int64)
    mesh = model.expansion_mesh(poses)
    torch.testing.assert_close(mesh, arrays["local_kem"], atol=1e-4, rtol=0)
    context = local_context(maps.embedding, mesh, image_index, spec.frame)
    torch.testing.assert_close(context, arrays["latent_code"], atol=1e-6, rtol=0)
    windows = model.reweighed_windows(upsample(maps.heatmaps), poses, image_index)
    torch.testing.assert_close(windows[0, [0, 5, 9, 11]], arrays["global_hm_reweighed_p0_j0_5_9_11"], atol=1e-6, rtol=0)
    values, indices = top_two(refine(windows, arrays["kam_raw"].clamp(0, 1)))
    assert torch.equal(indices, arrays["top2_idx"])
    torch.testing.assert_close(values, arrays["top2_value"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["partial", "none", "kem", "kam"])
def test_levels_and_priors_give_the_recorded_poses(vectors, name):
    spec, arrays = vectors
    switch = {"prior": name} if name.startswith("k") else {"level": name}
    adaptation = spec.adaptation.model_copy(update=switch)
    model, maps = replayed(spec.model_copy(update={"adaptation": adaptation}), arrays)
    found, expected = model.decode(maps).keypoints, arrays[f"final_poses_all_{name}"]
    clear = arrays.get(f"clear_{name}", torch.ones(expected.shape[:2], dtype=torch.bool))
    assert clear.float().mean() > 0.7
    torch.testing.assert_close(found[clear][:, :2], expected[clear][:, :2], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[..., 2], expected[..., 2], atol=1e-6, rtol=0)


def test_dense_maps_have_the_heads_widths():
    with torch.no_grad():
        maps = tiny()(torch.randn(2, 3, 64, 96))
    assert maps.heatmaps.shape == (2, 18, 16, 24)
    assert maps.offsets.shape == (2, 34, 16, 24)
    assert maps.embedding.shape == (2, 2, 16, 24)
    torch.testing.assert_close(maps.heatmaps, 1 / (1 + torch.exp(-maps.heatmap_logits)))


def test_published_heatmaps_have_no_activation():
    logits = torch.tensor([[[[-3.0, 2.0]]]])
    assert DenseMaps(logits, logits, logits).heatmaps is logits


def test_centers_are_the_3x3_maxima_in_order():
    center_map = torch.zeros(1, 8, 8)
    center_map[0, 2, 3], center_map[0, 2, 4], center_map[0, 2, 5] = 0.5, 0.3, 0.4  # (4, 2) lies beside a higher one
    center_map[0, 6, 1] = 0.9
    centers = select_centers(center_map, 4)[0]
    torch.testing.assert_close(centers[:3], torch.tensor([[1.0, 6.0, 0.9], [3.0, 2.0, 0.5], [5.0, 2.0, 0.4]]))
    assert centers[3, 2] == 0


def test_a_center_map_below_zero_has_no_maxima():
    center_map = -torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.1
    assert select_centers(center_map, 5)[..., 2].abs().max() == 0


@pytest.mark.parametrize(("frame", "base"), [("published", (9.0, 6.0)), ("consistent", (9.5, 5.5))])
def test_initial_pose_is_the_center_minus_its_cells_offset(frame, base):
    offsets = torch.zeros(1, 4, 4, 4)
    offsets[0, :, 1, 2] = torch.tensor([1.0, 0.0, 0.5, -0.25])  # cell (2, 1) contains net px (9, 6)
    poses = initial_poses(torch.tensor([[[9.0, 6.0, 0.7]]]), offsets, frame)
    x, y = base
    torch.testing.assert_close(poses, torch.tensor([[[[x - 4, y], [x - 2, y + 1]]]]))


def test_flip_average_turns_a_mirrored_scene_back():
    torch.manual_seed(2)
    heatmaps, offsets = torch.rand(1, 18, 4, 6), torch.randn(1, 34, 4, 6)
    mirrored_heatmaps, mirrored_offsets = torch.empty_like(heatmaps), torch.empty_like(offsets)
    for k, partner in enumerate([*COCO_17.flip_indices.tolist(), 17]):
        mirrored_heatmaps[:, k] = heatmaps[:, partner].flip(-1)
        if k < 17:
            mirrored_offsets[:, 2 * k] = -offsets[:, 2 * partner].flip(-1)
            mirrored_offsets[:, 2 * k + 1] = offsets[:, 2 * partner + 1].flip(-1)
    embedding = torch.rand(1, 2, 4, 6)
    maps = DenseMaps(heatmaps, offsets, embedding)
    averaged = flip_average(maps, DenseMaps(mirrored_heatmaps, mirrored_offsets, embedding + 1), COCO_17)
    torch.testing.assert_close(averaged.heatmaps, heatmaps)
    torch.testing.assert_close(averaged.offsets, offsets)
    assert averaged.embedding is embedding


def test_a_batch_gives_what_its_images_give_alone():
    model, images = tiny(), torch.randn(3, 3, 64, 96)
    model.final_layer_cls.bias.data[-1] = 0  # several centers an image
    together = model.detect(images)
    assert (together.image_index == 1).sum() > 1
    for i in range(3):
        alone, mine = model.detect(images[i : i + 1]), together.image_index == i
        torch.testing.assert_close(together.initial_poses[mine], alone.initial_poses, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.attraction_maps[mine], alone.attraction_maps, atol=1e-5, rtol=0)
        torch.testing.assert_close(together.scores[mine], alone.scores, atol=1e-6, rtol=0)


def test_an_image_without_a_confident_center_keeps_its_best_one():
    model = tiny(decode=DecodeSpec(max_people=5, center_threshold=1.0))
    assert model.detect(torch.randn(2, 3, 64, 64)).image_index.tolist() == [0, 1]


def test_flip_test_makes_detection_blind_to_the_mirror():
    model = tiny(decode=DecodeSpec(max_people=1, flip_test=True), adaptation=AdaptationSpec(level="none"))
    images = torch.randn(1, 3, 64, 64)
    plain, mirrored = model.detect(images), model.detect(images.flip(3))
    expected = mirrored.initial_poses[:, COCO_17.flip_indices.tolist()]
    expected[..., 0] = 63 - expected[..., 0]
    torch.testing.assert_close(plain.initial_poses, expected, atol=1e-3, rtol=0)


def test_offset_scale_multiplies_the_offsets():
    images = torch.randn(1, 3, 32, 32)
    one, eight = tiny(), tiny()
    eight.spec = eight.spec.model_copy(update={"heads": eight.spec.heads.model_copy(update={"offset_scale": 8.0})})
    with torch.no_grad():
        torch.testing.assert_close(eight(images).offsets, 8 * one(images).offsets)
