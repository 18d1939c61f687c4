"""Center-offset decode: from dense maps to one initial pose a center, and the removal of poses found twice.

Maps have one cell per 4 net px. In both frames cell u of an upsampled map lies at net px 4u + 1.5; they differ in what
an offset is counted from (`decode_center_offset`). A person has Q centers: one (LOGO-CAP, Xue et al., CVPR 2022,
section 3.2), or its head and its body (DAC, Cheng et al., 2022, section 3.1), each with offsets of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk.spec import STRIDE, DecodeSpec, ModelSpec

__all__ = ["ImageMaps", "InitialPoses", "average_flip", "decode_center_offset", "suppress_poses", "upsample"]

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

CELL_CENTER = (STRIDE - 1) / 2
"""Net px of the center of cell 0, half-pixel convention."""
BELOW = 1 - 1e-6
"""More than interpolation in float32 can add to the larger of two values."""
NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class InitialPoses:
    """Poses read off the centers, best center first.

    `keypoints` (N, K, 2) and `centers` (N, 2) float32 in net px, `scores` (N,) float32 center values, `kinds` (N,)
    which of the Q centers of a person each one is.
    """

    keypoints: FloatArray
    scores: FloatArray
    centers: FloatArray
    kinds: IndexArray

    def __len__(self) -> int:
        """Number of poses N."""
        return len(self.scores)

    def first(self, count: int) -> "InitialPoses":
        """The `count` best ones."""
        return InitialPoses(self.keypoints[:count], self.scores[:count], self.centers[:count], self.kinds[:count])


@dataclass(frozen=True, slots=True, eq=False)
class ImageMaps:
    """What the trunk says about one image.

    `heatmaps` (K+Q, h, w) and `offsets` (2KQ, h, w): with the flip test the mean with those of the mirror image. `own`:
    every output of the trunk for the image itself, by name, without the axis of the batch.
    """

    heatmaps: FloatArray
    offsets: FloatArray
    own: Mapping[str, FloatArray]


def average_flip(heatmaps: FloatArray, offsets: FloatArray, skeleton: Skeleton) -> tuple[FloatArray, FloatArray]:
    """Mean of the maps of an image and of its mirror image, in the frame of the image.

    `heatmaps` (2, K+Q, h, w), the Q center maps last, and `offsets` (2, 2KQ, h, w), center by center, each [image,
    mirrored]; gives (K+Q, h, w) and (2KQ, h, w). A center is its own mirror image. No shift by a pixel or a cell:
    mirroring net px x to W-1-x takes cell u to w-1-u.
    """
    count = len(skeleton)
    if len(heatmaps) != 2 or len(offsets) != 2:
        raise ValueError(f"flip average: expected maps of 2 images, got {len(heatmaps)} and {len(offsets)}")
    partners = skeleton.flip_indices
    channels = np.concatenate([partners, np.arange(count, heatmaps.shape[1])])
    mirrored = offsets[1].reshape(-1, count, 2, *offsets.shape[2:])[:, partners, :, :, ::-1].copy()
    mirrored[:, :, 0] *= -1
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
    """Initial poses of the best centers: of each of the Q kinds the best, of at least `center_threshold`.

    `heatmaps` (K+Q, h, w) with the center maps last, `offsets` (2KQ, h, w) in cells, for each kind of center x0, y0,
    x1, y1, ...; an offset is center minus keypoint and is read at the cell that contains the center. Where no center of
    any kind reaches the threshold the best one is kept, provided it is above 0. Frame "published" counts the offset
    from the center's own net px, frame "consistent" from the middle of its cell, and passes over the outermost pixels:
    replication makes them equal to their inner neighbours, so that every tail that touches the border would be a
    maximum there. A person whose centers are both found is there twice.
    """
    count, centers_each = spec.keypoint_count, spec.center_count
    if len(heatmaps) != count + centers_each or len(offsets) != 2 * count * centers_each:
        raise ValueError(
            f"decode: expected {count + centers_each} heatmaps and {2 * count * centers_each} offset maps for {count} "
            f"keypoints and centers {spec.centers!r}, got {len(heatmaps)} and {len(offsets)}"
        )
    kinds, places, scores = _find_centers(heatmaps[count:], spec)
    centers, cells = places.astype(np.float32), places // STRIDE
    of_kind = offsets.reshape(centers_each, count, 2, *offsets.shape[1:])
    displacement = of_kind[kinds, :, :, cells[:, 1], cells[:, 0]]  # (N, K, 2)
    if spec.frame == "published":
        keypoints = (centers[:, None] / np.float32(STRIDE) - displacement) * np.float32(STRIDE)
    else:
        keypoints = (cells.astype(np.float32)[:, None] - displacement) * np.float32(STRIDE) + np.float32(CELL_CENTER)
    return InitialPoses(keypoints.astype(np.float32), scores, centers, kinds)


def _find_centers(cells: FloatArray, spec: ModelSpec) -> tuple[IndexArray, IndexArray, FloatArray]:
    """Kind (N,), place x, y (N, 2) and value (N,) of the centers in maps (Q, h, w), highest first, at net resolution.

    Ties stand in the order of the kinds, those of one kind in reading order.
    """
    center_maps = upsample(cells)
    flat = center_maps.reshape(len(cells), -1)
    found = [_find_maxima(*maps, spec) for maps in zip(cells, center_maps, strict=True)]
    if not any(map(len, found)):
        best = int(flat.argmax())
        kind, place = divmod(best, flat.shape[1])
        found[kind] = np.array([place][: int(flat[kind, place] > 0)], dtype=np.intp)
    kinds = np.repeat(np.arange(len(found)), [len(places) for places in found])
    places = np.concatenate(found)
    values = flat[kinds, places]
    if len(found) > 1:
        order = np.argsort(-values, kind="stable")
        kinds, places, values = kinds[order], places[order], values[order]
    ys, xs = np.divmod(places, center_maps.shape[2])
    return kinds, np.stack([xs, ys], axis=-1), values


def _find_maxima(cells: FloatArray, center_map: FloatArray, spec: ModelSpec) -> IndexArray:
    """Flat indices of the `most_candidates` highest local maxima (3x3) of a map, highest first, ties in their order.

    `center_map` is `cells` upsampled. What a pixel has lies between what the cells around it have, so only rows of
    pixels that are near a cell of at least the threshold are looked at.
    """
    threshold = spec.decode.center_threshold
    reached = cells >= threshold * BELOW if threshold > 0 else cells > 0
    rows = np.flatnonzero(reached.any(axis=1))
    if not len(rows):
        return np.zeros(0, np.intp)
    # A cell has a part in the pixels up to 2 before and 2 behind its own 4; one more row is theirs to be compared with.
    top, bottom = max(int(rows[0]) * STRIDE - 3, 0), min(int(rows[-1] + 1) * STRIDE + 3, len(center_map))
    band = center_map[top:bottom]
    # A pixel below 0 is no peak, so the largest neighbour decides alone, without the clamp at 0.
    peaks = band == cv2.dilate(band, NEIGHBOURS)
    peaks &= band >= threshold if threshold > 0 else band > 0
    if spec.frame == "consistent":
        peaks[: max(1 - top, 0)] = peaks[len(center_map) - 1 - top :] = False
        peaks[:, 0] = peaks[:, -1] = False
    candidates = np.flatnonzero(peaks)
    order = np.argsort(-band.reshape(-1)[candidates], kind="stable")
    best: IndexArray = candidates[order[: spec.most_candidates]] + top * center_map.shape[1]
    return best


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
    xs, ys = np.ascontiguousarray(keypoints.transpose(2, 1, 0))  # (K, N) each
    width, height = (values.max(axis=0) - values.min(axis=0) for values in (xs, ys))
    reach = np.float32(spec.nms_distance) * np.sqrt(width**2 + height**2)
    across, down = (values[:, :, None] - values[:, None, :] for values in (xs, ys))  # (K, N, N)
    across *= across
    down *= down
    across += down
    close: NDArray[np.bool_] = (np.sqrt(across, out=across) < reach[:, None]).sum(axis=0) > spec.nms_keypoints
    return close


def _keep_best_of_near(near: NDArray[np.bool_], scores: FloatArray) -> NDArray[np.intp]:
    values = scores.tolist()
    candidates: list[list[int]] = [[] for _ in values]
    for index, neighbour in zip(*(indices.tolist() for indices in near.nonzero()), strict=True):
        candidates[index].append(neighbour)
    settled: set[int] = set()
    kept = []
    for index, neighbours in enumerate(candidates):
        if index in settled or not neighbours:
            continue
        best = max(neighbours, key=values.__getitem__)
        if best not in settled:
            kept.append(best)
        settled.update(neighbours)
    return np.array(kept, dtype=np.intp)
