"""From the initial poses of a person's centers to persons by networks that look at a pose.

DAC (Cheng et al., "Bottom-Up 2D Pose Estimation via Dual Anatomical Centers for Small-Scale Persons", 2022), sections
3.2 to 3.4: poses that look alike and lie alike are one person's, the one of highest confidence stands for it and is
refined. All lengths are in net px; maps of level r have one cell per 4 * 2^r net px, half-pixel centers.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import ImageMaps, InitialPoses, suppress_poses
from posesdk.grouping import distinct_poses, group_poses, group_sigma, near_poses, pose_scales, pose_similarity
from posesdk.sampling import sample_levels, sample_patches
from posesdk.spec import STRIDE, EdgeBackboneSpec, ModelSpec
from posesdk.windows import sample_windows

__all__ = [
    "LEVELS",
    "RESIDUAL_STEP",
    "DualCenters",
    "level_channels",
    "pose_context",
    "refine_poses",
]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

LEVELS = ("level0", "level1", "level2", "level3")
"""Feature maps of the trunk, (h / 2^r, w / 2^r, C_r) for an image."""
STRIDES: FloatArray = np.array([STRIDE << level for level in range(len(LEVELS))], np.float32)[:, None, None]
"""Net px per cell of each of them."""
MIDDLES: FloatArray = (STRIDES - np.float32(1)) / np.float32(2)
"""Net px of the middle of their first cells."""
RESIDUAL_STEP = 0.1
"""A residual of 1 is this part of the pose's scale."""


def level_channels(spec: ModelSpec) -> tuple[int, int, int, int]:
    """Channels of the four feature maps."""
    backbone = spec.backbone
    if isinstance(backbone, EdgeBackboneSpec):
        return (backbone.neck, backbone.neck, backbone.neck, backbone.neck)
    return backbone.channels


def pose_context(keypoints: FloatArray, maps: Mapping[str, FloatArray], spec: ModelSpec) -> FloatArray:
    """Input of the `adapt` graph (N, K, F + patch^2 + 2) for poses (N, K, 2): all that the networks see of a keypoint.

    The F features of all levels at the keypoint, `patch` x `patch` cells of its own heatmap around it, row by row, and
    its place relative to the mean of the keypoints, in scales of the pose. `maps` are the trunk's outputs for the image
    that is not mirrored; what lies outside of them is 0.
    """
    persons, count = keypoints.shape[:2]
    widths, patch = level_channels(spec), spec.pose_nets.patch**2
    context = np.empty((persons, count, sum(widths) + patch + 2), np.float32)
    rows, points = context.reshape(persons * count, context.shape[2]), keypoints.reshape(persons * count, 2)
    places = (points.T - MIDDLES) / STRIDES  # (L, 2, NK)
    sample_levels([maps[name] for name in LEVELS], places, rows)
    start = sum(widths)
    patches = sample_patches(maps["heatmaps"][:count], places[0], spec.pose_nets.patch)
    rows[:, start : start + patch] = patches.reshape(persons * count, patch)
    relative = keypoints - keypoints.mean(axis=1, keepdims=True)
    context[..., start + patch :] = relative / pose_scales(keypoints)[:, None, None]
    return context


def refine_poses(keypoints: FloatArray, residuals: FloatArray) -> FloatArray:
    """Poses (N, K, 2) moved by their residuals (N, K, 2), which are in tenths of the pose's scale."""
    return keypoints + np.float32(RESIDUAL_STEP) * pose_scales(keypoints)[:, None, None] * residuals


class DualCenters:
    """DAC as a `posesdk.methods.Method`; `ModelSpec.pose_nets` says which networks there are."""

    def feature_maps(self, spec: ModelSpec) -> dict[str, tuple[int | None, ...]]:
        """Four levels of features."""
        return {name: (None, None, None, width) for name, width in zip(LEVELS, level_channels(spec), strict=True)}

    def context_shape(self, spec: ModelSpec) -> tuple[int | None, ...]:
        """That of `pose_context`."""
        return (None, spec.keypoint_count, sum(level_channels(spec)) + spec.pose_nets.patch**2 + 2)

    def adapt_outputs(self, spec: ModelSpec) -> dict[str, tuple[int | None, ...]]:
        """What each of the networks gives that are there."""
        nets = spec.pose_nets
        outputs: dict[str, tuple[bool, tuple[int | None, ...]]] = {
            "similarity": (nets.similarity, (None, nets.embedding)),
            "confidence": (nets.confidence, (None,)),
            "residuals": (nets.refinement, (None, spec.keypoint_count, 2)),
        }
        return {name: shape for name, (used, shape) in outputs.items() if used}

    def needs_adapt(self, spec: ModelSpec) -> bool:
        """Whether there is any network."""
        return bool(self.adapt_outputs(spec))

    def ceiling(self, heatmaps: FloatArray, spec: ModelSpec) -> float:
        """None is known: the network may think more of a pose than its center does, and fewer poses raise a mean."""
        return math.inf

    def context(self, initial: InitialPoses, maps: ImageMaps, spec: ModelSpec) -> FloatArray:
        """What the image itself has at every keypoint."""
        return pose_context(initial.keypoints, maps.own, spec)

    def finish(
        self, initial: InitialPoses, maps: ImageMaps, outputs: Mapping[str, FloatArray], spec: ModelSpec
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """One pose a person, best first, at most `max_people`; a keypoint's score is the person's times its heatmap.

        The heatmap, the mean with that of the mirror image, is read at the refined place; below 0 it counts as 0. One
        center without any network, the first row of Table 6, is the center-offset baseline as LOGO-CAP has it: all
        poses stay, each scores what its keypoints do in the mean, and `select` removes those found twice.
        """
        if not len(initial):
            return initial.keypoints, np.zeros(initial.keypoints.shape[:2], np.float32), initial.scores
        if missing := sorted(set(self.adapt_outputs(spec)) - set(outputs)):
            raise ValueError(f"pose networks of {spec.name}: expected {', '.join(missing)} of {len(initial)} poses")
        if self._is_baseline(spec):
            values = initial.scores[:, None] * _responses(initial.keypoints, maps, spec)
            return initial.keypoints, values, values.mean(axis=1)
        keypoints, scores = _choose(initial, outputs, spec)
        return keypoints, scores[:, None] * _responses(keypoints, maps, spec).clip(0), scores

    def select(self, keypoints: FloatArray, scores: FloatArray, spec: ModelSpec) -> IndexArray:
        """All, for poses of one person have been grouped, but for those that `final_oks_nms` takes for another's.

        Of the center-offset baseline those that DEKR's pose NMS keeps.
        """
        kept = suppress_poses(keypoints, scores, spec.decode) if self._is_baseline(spec) else np.arange(len(scores))
        limit = spec.pose_nets.final_oks_nms
        if limit is not None:
            kept = kept[distinct_poses(keypoints[kept], scores[kept], spec.skeleton.sigma_array, limit)]
        return kept

    def _is_baseline(self, spec: ModelSpec) -> bool:
        return spec.centers == "single" and not self.needs_adapt(spec)


def _responses(keypoints: FloatArray, maps: ImageMaps, spec: ModelSpec) -> FloatArray:
    """(N, K) heatmap of each keypoint where it is."""
    return sample_windows(keypoints, maps.heatmaps, 1, spec.frame)[..., 0, 0]


def _choose(initial: InitialPoses, outputs: Mapping[str, FloatArray], spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """Refined pose (N', K, 2) and score (N',) of each person.

    Refinement sees one pose alone, so that to refine all of them first is the same. "merge" takes the mean of the
    refined poses of a group by confidence.
    """
    nets = spec.pose_nets
    confidence = outputs["confidence"] if nets.confidence else initial.scores
    if nets.similarity:
        similarity = pose_similarity(initial.keypoints, outputs["similarity"], group_sigma(spec))
        groups = group_poses(similarity > nets.group_threshold, confidence)
    else:
        groups = group_poses(near_poses(initial.keypoints), confidence)
    poses = refine_poses(initial.keypoints, outputs["residuals"]) if nets.refinement else initial.keypoints
    best = np.array([group[0] for group in groups])
    scores = confidence[best]
    if not nets.confidence:
        scores = np.array([initial.scores[group].mean() for group in groups], np.float32)
    elif nets.score == "confidence_center":
        scores = scores * initial.scores[best]
    chosen = poses[best]
    if nets.select == "merge":
        # Arithmetic of low precision may round every confidence of a group to 0.
        weights = np.maximum(confidence, np.finfo(np.float32).eps)
        chosen = np.stack([np.average(poses[group], axis=0, weights=weights[group]) for group in groups])
    order = np.argsort(-scores, kind="stable")[: spec.decode.max_people]
    return chosen[order].astype(np.float32), scores[order]
