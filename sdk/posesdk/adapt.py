"""Local-global contextual adaptation of initial poses (LOGO-CAP, Xue et al., CVPR 2022, sections 3.3 and 3.4).

Each keypoint is expanded to a small mesh on which the embedding is sampled: the input of the `adapt` graph, which
predicts one kernel a keypoint, the attraction map. The kernel filters a large window of the keypoint's heatmap around
the initial position, weighted by a Gaussian, and the two best pixels give the final one.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from posesdk.context import expansion_axes, local_context
from posesdk.decode import ImageMaps, InitialPoses, suppress_poses
from posesdk.responses import best_responses, find_peaks
from posesdk.spec import ModelSpec
from posesdk.windows import reweighed_windows, sample_windows

__all__ = ["LocalGlobalAdaptation", "adapt_poses", "uses_attraction"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

PEAK_WEIGHT = 0.75
"""Share of the best pixel; the second best has the rest."""
_SHARES = np.array([PEAK_WEIGHT, 1 - PEAK_WEIGHT], np.float32)


def uses_attraction(spec: ModelSpec) -> bool:
    """Whether `adapt_poses` needs attraction maps, so whether the `adapt` graph has to run."""
    adaptation = spec.adaptation
    return adaptation.level == "partial" or (adaptation.level == "full" and adaptation.prior != "kem")


def adapt_poses(
    initial: InitialPoses, heatmaps: FloatArray, attraction_maps: FloatArray | None, spec: ModelSpec
) -> tuple[FloatArray, FloatArray]:
    """Final keypoints (N, K, 2) in net px and their scores (N, K): refined value times center score.

    `heatmaps` (K+1, h, w) raw; `attraction_maps` (N, K, n, n) as the `adapt` graph gives them, None where
    `uses_attraction` says that they are not needed. A keypoint whose attraction map is nowhere above 0 has no response:
    it stays where it is, with score 0. Points may lie outside of the image. Raises ValueError for maps that do not fit.
    """
    attraction = _checked_attraction(initial, attraction_maps, spec)
    keypoints, values = _adapt(initial.keypoints, heatmaps, attraction, spec)
    return keypoints, values * initial.scores[:, None]


def _checked_attraction(initial: InitialPoses, maps: FloatArray | None, spec: ModelSpec) -> FloatArray | None:
    if not uses_attraction(spec):
        return None
    size = spec.adaptation.local_size
    expected = (len(initial), spec.keypoint_count, size, size)
    if maps is None or maps.shape != expected:
        given = "none" if maps is None else f"shape {maps.shape}"
        raise ValueError(
            f"adaptation of level {spec.adaptation.level!r}: expected attraction maps {expected}, got {given}"
        )
    return np.asarray(maps.clip(0, 1), np.float32)


def _adapt(
    poses: FloatArray, heatmaps: FloatArray, attraction: FloatArray | None, spec: ModelSpec
) -> tuple[FloatArray, FloatArray]:
    """Keypoints (N, K, 2) and values (N, K) of poses (N, K, 2)."""
    adaptation = spec.adaptation
    if adaptation.level == "none":
        return poses, sample_windows(poses, heatmaps, 1, spec.frame)[..., 0, 0]
    if adaptation.level == "partial":
        assert attraction is not None
        return _best_of_mesh(poses, attraction, spec)
    if attraction is None:
        indices, values = find_peaks(reweighed_windows(poses, heatmaps, adaptation, spec.frame))  # (N, K, 2) each
        places = np.stack(np.divmod(indices, adaptation.global_size)[::-1])
    else:
        places, values = best_responses(poses, heatmaps, attraction, spec)
    shift = (places @ _SHARES - adaptation.global_size // 2).transpose(1, 2, 0)
    refined, value = poses + shift.astype(np.float32), values @ _SHARES
    if attraction is None:
        return refined, value
    return _keep_unanswered(poses, refined, attraction), value


def _best_of_mesh(poses: FloatArray, attraction: FloatArray, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    xs, ys = expansion_axes(poses, spec)  # (N, K, n)
    flat = attraction.reshape(*attraction.shape[:2], spec.adaptation.local_size**2)
    best = flat.argmax(axis=-1)[..., None]  # (N, K, 1)
    row, column = np.divmod(best, spec.adaptation.local_size)
    points = np.concatenate([np.take_along_axis(xs, column, -1), np.take_along_axis(ys, row, -1)], axis=-1)
    return _keep_unanswered(poses, points, attraction), np.take_along_axis(flat, best, -1)[..., 0]


def _keep_unanswered(poses: FloatArray, refined: FloatArray, attraction: FloatArray) -> FloatArray:
    """The refined keypoints, the initial ones where the attraction map is 0 everywhere and every place is as good."""
    flat = attraction.reshape(*attraction.shape[:2], attraction.shape[2] * attraction.shape[3])
    answered = flat @ np.ones(flat.shape[2], np.float32) > 0
    return np.where(answered[..., None], refined, poses)


class LocalGlobalAdaptation:
    """LOGO-CAP as a `posesdk.methods.Method`; a person's score is the mean of its keypoints' scores."""

    def feature_maps(self, spec: ModelSpec) -> dict[str, tuple[int | None, ...]]:
        """The embedding."""
        return {"embedding": (None, None, None, spec.heads.embedding)}

    def context_shape(self, spec: ModelSpec) -> tuple[int | None, ...]:
        """That of `local_context`."""
        size = spec.adaptation.local_size
        return (None, spec.keypoint_count * spec.heads.embedding, size, size)

    def adapt_outputs(self, spec: ModelSpec) -> dict[str, tuple[int | None, ...]]:
        """The attraction maps."""
        size = spec.adaptation.local_size
        return {"attraction_maps": (None, spec.keypoint_count, size, size)}

    def needs_adapt(self, spec: ModelSpec) -> bool:
        """Whether the attraction maps are used."""
        return uses_attraction(spec)

    def ceiling(self, heatmaps: FloatArray, spec: ModelSpec) -> float:
        """No response is above the maximum of its heatmap, or 1 where it is that of the attraction map."""
        if spec.adaptation.level == "partial":
            return 1.0
        return float(heatmaps[: spec.keypoint_count].max(axis=(1, 2)).clip(0).mean())

    def context(self, initial: InitialPoses, maps: ImageMaps, spec: ModelSpec) -> FloatArray:
        """The embedding of the image itself around every keypoint."""
        return local_context(initial.keypoints, maps.own["embedding"], spec)

    def finish(
        self, initial: InitialPoses, maps: ImageMaps, outputs: Mapping[str, FloatArray], spec: ModelSpec
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Every candidate adapted. Raises ValueError for attraction maps that are needed and missing."""
        if not len(initial):
            return initial.keypoints, np.zeros(initial.keypoints.shape[:2], np.float32), initial.scores
        keypoints, values = adapt_poses(initial, maps.heatmaps, outputs.get("attraction_maps"), spec)
        return keypoints, values, values.mean(axis=1)

    def select(self, keypoints: FloatArray, scores: FloatArray, spec: ModelSpec) -> IndexArray:
        """Poses that are near to each other are one person's, whichever centers they come from."""
        return suppress_poses(keypoints, scores, spec.decode)
