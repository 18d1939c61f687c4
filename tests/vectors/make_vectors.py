"""Writes `decode_consistent.npz` and `decode_published.npz`: every decode stage of two seeded tiny networks.

The device-side decoder and the torch network are tested against the same arrays, which need nothing beside the
repository. Names follow the published words: hm = heatmap, kem = expansion mesh, kam = attraction map. `spec` is the
model's specification as JSON. `final_poses_all_{partial,none,kem,kam}` are the same maps decoded with that level or
prior alone; for the priors `clear_kem` and `clear_kam` (N, K) say where the peaks are no ties.

    python tests/vectors/make_vectors.py
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, Frame, HeadSpec, InputSpec, ModelSpec
from posesdk_training.models.adaptation import (
    global_windows,
    keypoints_from_peaks,
    local_context,
    refine,
    top_two,
    upsample,
)
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import DenseMaps, LogoCap

FOLDER = Path(__file__).parent
HEIGHT, WIDTH = 64, 96
SHOWN_KEYPOINTS = [0, 5, 9, 11]
SEEDS: dict[Frame, int] = {"consistent": 7, "published": 52}
CENTER_THRESHOLD = 0.21
"""Three of the six candidates of either seed lie above it, at distinct confidences."""
VARIANTS: dict[str, dict[str, str]] = {
    "partial": {"level": "partial"},
    "none": {"level": "none"},
    "kem": {"prior": "kem"},
    "kam": {"prior": "kam"},
}
PEAK_GAP = 3e-6
"""Smallest gap between the three highest values of a refined map, far above float32 noise (3e-8)."""


def tiny_spec(frame: Frame) -> ModelSpec:
    """A network of our own kind, small enough that all its stages are small arrays."""
    return ModelSpec(
        name=f"tiny-{frame}",
        frame=frame,
        input=InputSpec(resize="long", side=WIDTH, multiple=32),
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 16, 16), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=2, activation="sigmoid"),
        decode=DecodeSpec(max_people=6, center_threshold=CENTER_THRESHOLD),
        adaptation=AdaptationSpec(
            local_size=7, global_size=13, reweigh_sigma=2.0, message_channels=(8, 8, 8), affine_pairs=3
        ),
    )


@torch.no_grad()
def seeded_model(spec: ModelSpec, images: torch.Tensor) -> LogoCap:
    """Random weights, scaled so that maps, offsets and attraction maps spread over the ranges of a trained network."""
    model = build_model(spec).train()
    size, channels = spec.adaptation.local_size, spec.keypoint_count * spec.heads.embedding
    for _ in range(20):
        model(images)
        model.joints_mlp(torch.randn(8, channels, size, size))
    for layer, std, bias in (
        (model.final_layer_cls, 0.8, -2.0),
        (model.final_layer_reg, 4.0, 0.0),
        (model.joints_mlp[-1], 0.6, 0.4),
    ):
        layer.weight.normal_(std=std)
        layer.bias.fill_(bias)
    return model.eval()


def clear_peaks(refined: torch.Tensor) -> torch.Tensor:
    """(N, K) bool: whether the three highest values of a map are far enough apart for one answer on every machine."""
    top3 = refined.flatten(2).topk(3).values
    return (top3[..., :-1] - top3[..., 1:]).amin(-1) > PEAK_GAP


def stages(model: LogoCap, maps: DenseMaps) -> dict[str, torch.Tensor]:
    """Every intermediate of the decode, by the names of the published reference."""
    spec = model.spec
    found = model.decode(maps)
    poses, index = found.initial_poses, found.image_index
    mesh = model.expansion_mesh(poses)
    upsampled = upsample(maps.heatmaps)
    size = spec.adaptation.global_size
    windows = global_windows(upsampled, poses, index, size=size, frame=spec.frame)
    reweighed = model.reweighed_windows(upsampled, poses, index)
    refined = refine(reweighed, found.attraction_maps.clamp(0, 1))
    values, indices = top_two(refined)
    if not clear_peaks(refined).all():
        raise ValueError(f"{spec.name}: two peaks of a refined map are too close to be told apart on every machine")
    return {
        "heatmaps": maps.heatmaps,
        "offsets": maps.offsets,
        "embedding": maps.embedding,
        "centers": found.centers,
        "initial_poses": poses,
        "local_kem": mesh,
        "latent_code": local_context(maps.embedding, mesh, index, spec.frame),
        "kam_raw": found.attraction_maps,
        "global_hm_sampled_p0_j0_5_9_11": windows[0, SHOWN_KEYPOINTS],
        "global_hm_reweighed_p0_j0_5_9_11": reweighed[0, SHOWN_KEYPOINTS],
        "refined_hm_p0_j0_5_9_11": refined[0, SHOWN_KEYPOINTS],
        "top2_value": values,
        "top2_idx": indices,
        "refined_pose_rawscore": keypoints_from_peaks(values, indices, poses, size),
        "final_poses_all": found.keypoints,
        "scores_all": found.scores,
    }


def with_adaptation(model: LogoCap, **changes: str) -> LogoCap:
    """The same weights under another adaptation level or prior."""
    adaptation = model.spec.adaptation.model_copy(update=changes)
    other = build_model(model.spec.model_copy(update={"adaptation": adaptation})).eval()
    other.load_state_dict(model.state_dict())
    return other


@torch.no_grad()
def write(frame: Frame) -> Path:
    """Write the vectors of one frame and return the file."""
    torch.manual_seed(SEEDS[frame])
    spec = tiny_spec(frame)
    images = F.interpolate(torch.randn(4, 3, HEIGHT // 4, WIDTH // 4), scale_factor=4.0, mode="bicubic")
    model = seeded_model(spec, images)
    maps = model(images[:1])
    arrays = {name: value.numpy() for name, value in stages(model, maps).items()}
    for name, changes in VARIANTS.items():
        variant = with_adaptation(model, **changes)
        found = variant.decode(maps)
        arrays[f"final_poses_all_{name}"] = found.keypoints.numpy()
        if "prior" in changes:
            refined = variant.reweighed_windows(upsample(maps.heatmaps), found.initial_poses, found.image_index)
            if changes["prior"] == "kam":
                refined = refine(refined, found.attraction_maps.clamp(0, 1))
            arrays[f"clear_{name}"] = clear_peaks(refined).numpy()
    path = FOLDER / f"decode_{frame}.npz"
    np.savez_compressed(path, spec=np.array(spec.model_dump_json()), **arrays)
    return path


if __name__ == "__main__":
    for name in SEEDS:
        write(name)
