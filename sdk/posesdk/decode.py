"""Center-offset decode: from dense maps to one initial pose a person, and the removal of poses found twice.

Maps have one cell per 4 net px. In both frames cell u of an upsampled map lies at net px 4u + 1.5; they differ in what
an offset is counted from (`decode_center_offset`). Method: LOGO-CAP (Xue et al., CVPR 2022), section 3.2.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk.spec import STRIDE, DecodeSpec, ModelSpec

__all__ = ["InitialPoses", "average_flip", "decode_center_offset", "suppress_poses", "upsample"]

FloatArray = NDArray[np.float32]

CELL_CENTER = (STRIDE - 1) / 2
"""Net px of the center of cell 0, half-pixel convention."""


@dataclass(frozen=True, slots=True)
class InitialPoses:
    """Poses read off the centers, best center first.

    `keypoints` (N, K, 2) and `centers` (N, 2) float32 in net px, `scores` (N,) float32 center values.
    """

    keypoints: FloatArray
    scores: FloatArray
    centers: FloatArray

    def __len__(self) -> int:
        """Number of persons N."""
        return len(self.scores)


def average_flip(heatmaps: FloatArray, offsets: FloatArray, skeleton: Skeleton) -> tuple[FloatArray, FloatArray]:
    """Mean of the maps of an image and of its mirror image, in the frame of the image.

    `heatmaps` (2, K+C, h, w), the C center maps last, and `offsets` (2, 2K, h, w), each [image, mirrored]; gives
    (K+C, h, w) and (2K, h, w). No shift by a pixel or a cell: mirroring net px x to W-1-x takes cell u to w-1-u.
    """
    count = len(skeleton)
    if len(heatmaps) != 2 or len(offsets) != 2:
        raise ValueError(f"flip average: expected maps of 2 images, got {len(heatmaps)} and {len(offsets)}")
    partners = skeleton.flip_indices
    channels = np.concatenate([partners, np.arange(count, heatmaps.shape[1])])
    mirrored = offsets[1].reshape(count, 2, *offsets.shape[2:])[partners, :, :, ::-1].copy()
    mirrored[:, 0] *= -1
    return (
        (heatmaps[0] + heatmaps[1][channels, :, ::-1]) / np.float32(2),
        (offsets[0] + mirrored.reshape(offsets.shape[1:])) / np.float32(2),
    )


def upsample(maps: FloatArray) -> FloatArray:
    """Maps (C, h, w) at net resolution, (C, 4h, 4w): bilinear with half-pixel centers, replicated at the border."""
    count, height, width = maps.shape
    result = np.empty((count, height * STRIDE, width * STRIDE), np.float32)
    for source, target in zip(np.ascontiguousarray(maps, np.float32), result, strict=True):
        cv2.resize(source, (width * STRIDE, height * STRIDE), dst=target, interpolation=cv2.INTER_LINEAR)
    return result


def decode_center_offset(heatmaps: FloatArray, offsets: FloatArray, spec: ModelSpec) -> InitialPoses:
    """Initial poses of the best centers: at most `max_people`, of at least `center_threshold`.

    `heatmaps` (K+1, h, w) with the center map last, `offsets` (2K, h, w) in cells, x0, y0, x1, y1, ...; an offset is
    center minus keypoint and is read at the cell that contains the center. Where no center reaches the threshold the
    best one is kept, provided it is above 0. Frame "published" counts the offset from the center's own net px, frame
    "consistent" from the middle of its cell, and passes over the outermost pixels: replication makes them equal to
    their inner neighbours, so that every tail that touches the border would be a maximum there.
    """
    count = spec.keypoint_count
    if len(heatmaps) != count + 1 or len(offsets) != 2 * count:
        raise ValueError(
            f"decode: expected {count + 1} heatmaps and {2 * count} offset maps for {count} keypoints, "
            f"got {len(heatmaps)} and {len(offsets)}"
        )
    xs, ys, scores = _find_centers(upsample(heatmaps[count:])[0], spec)
    centers = np.stack([xs, ys], axis=-1).astype(np.float32)  # (N, 2)
    cells = np.stack([xs, ys], axis=-1) // STRIDE
    displacement = offsets[:, cells[:, 1], cells[:, 0]].T.reshape(-1, count, 2)  # (N, K, 2)
    if spec.frame == "published":
        keypoints = (centers[:, None] / np.float32(STRIDE) - displacement) * np.float32(STRIDE)
    else:
        keypoints = (cells.astype(np.float32)[:, None] - displacement) * np.float32(STRIDE) + np.float32(CELL_CENTER)
    return InitialPoses(keypoints.astype(np.float32), scores, centers)


def _find_centers(
    center_map: FloatArray, spec: ModelSpec
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """x, y and value of the local maxima (3x3) of a map at net resolution, highest first, ties in reading order."""
    decode = spec.decode
    # A pixel below 0 is no peak, so the largest neighbour decides alone, without the clamp at 0.
    peaks = center_map == cv2.dilate(center_map, np.ones((3, 3), np.uint8))
    if spec.frame == "consistent":
        peaks[[0, -1]] = False
        peaks[:, [0, -1]] = False
    candidates = np.flatnonzero(peaks & (center_map > 0) & (center_map >= decode.center_threshold))
    values = center_map.ravel()
    if not len(candidates):
        best = int(values.argmax())
        candidates = np.array([best][: int(values[best] > 0)], dtype=np.intp)
    order = np.argsort(-values[candidates], kind="stable")[: decode.max_people]
    ys, xs = np.divmod(candidates[order], center_map.shape[1])
    return xs, ys, values[candidates[order]]


def suppress_poses(keypoints: FloatArray, scores: FloatArray, decode_spec: DecodeSpec) -> NDArray[np.intp]:
    """Indices of the poses that stay, in the order in which they are kept: not sorted by score.

    `keypoints` (N, K, 2) in px of any frame, `scores` (N,). Pose j is near pose i when more than `nms_keypoints` of its
    keypoints are closer than `nms_distance` times the diagonal of the box of pose i. In input order, the best of the
    poses near i is kept and all of them are settled. A pose without extent is near nothing, not even itself, and goes.
    Where more than `max_people` stay, the best ones, highest score first. A `nms_distance` of 0, or `nms_keypoints` not
    below K, switches the suppression off. Source: DEKR (Geng et al., CVPR 2021), as LOGO-CAP uses it.
    """
    if decode_spec.nms_distance > 0 and decode_spec.nms_keypoints < keypoints.shape[1]:
        kept = _keep_best_of_near(_near(keypoints, decode_spec), scores)
    else:
        kept = np.arange(len(scores))
    if len(kept) > decode_spec.max_people:
        kept = kept[np.argsort(-scores[kept], kind="stable")[: decode_spec.max_people]]
    return kept


def _near(keypoints: FloatArray, spec: DecodeSpec) -> NDArray[np.bool_]:
    extent = keypoints.max(axis=1) - keypoints.min(axis=1)  # (N, 2)
    reach = np.float32(spec.nms_distance) * np.sqrt((extent**2).sum(axis=-1))
    difference = keypoints[:, None] - keypoints[None]  # (N, N, K, 2)
    distance = np.sqrt((difference**2).sum(axis=-1))
    close: NDArray[np.bool_] = (distance < reach[:, None, None]).sum(axis=-1) > spec.nms_keypoints
    return close


def _keep_best_of_near(near: NDArray[np.bool_], scores: FloatArray) -> NDArray[np.intp]:
    settled = np.zeros(len(scores), dtype=bool)
    kept = []
    for index, neighbours in enumerate(near):
        candidates = np.flatnonzero(neighbours)
        if settled[index] or not len(candidates):
            continue
        best = candidates[scores[candidates].argmax()]
        if not settled[best]:
            kept.append(best)
        settled[candidates] = True
    return np.array(kept, dtype=np.intp)
