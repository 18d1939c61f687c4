"""What the SDK computes by shortcuts, as the formulas stand: what its tests expect, and its benchmarks compare with."""

import cv2
import numpy as np

from posesdk.context import expansion_axes
from posesdk.decode import CELL_CENTER, InitialPoses, upsample
from posesdk.spec import STRIDE


def bilinear_taps(positions, size, frame):
    """The two (index, weight) of bilinear sampling along an axis of `size` samples, replicated at its ends.

    Frame "published" keeps the published sampler's fault: between the last sample and one step beyond it, both taps are
    the last sample and only the second has a weight, so the value falls to 0 and ramps up again.
    """
    low = np.floor(positions).clip(0, size - 1)
    high = np.minimum(low + 1, size - 1)
    high_weight = (positions - low).clip(0, 1)
    low_weight = (high - positions).clip(0, 1) if frame == "published" else 1 - high_weight
    return (low.astype(np.intp), low_weight), (high.astype(np.intp), high_weight)


def local_context(keypoints, embedding, spec):
    """`posesdk.context.local_context` as a weighted sum of the four taps of every sample, one person at a time."""
    height, width, depth = embedding.shape
    count, size = spec.keypoint_count, spec.adaptation.local_size
    origin = np.float32(0 if spec.frame == "published" else CELL_CENTER)
    xs, ys = ((axis - origin) / np.float32(STRIDE) for axis in expansion_axes(keypoints, spec))
    rows = np.ascontiguousarray(embedding, np.float32).reshape(height * width, depth)
    context = np.empty((len(keypoints), count, depth, size, size), np.float32)
    for person, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x_taps, y_taps = bilinear_taps(x, width, spec.frame), bilinear_taps(y, height, spec.frame)
        total = np.zeros((count, size, size, depth), np.float32)
        for y_cell, y_weight in y_taps:
            for x_cell, x_weight in x_taps:
                cells = rows[y_cell[:, :, None] * width + x_cell[:, None, :]]
                total += cells * (y_weight[:, :, None] * x_weight[:, None, :])[..., None]
        context[person] = total.transpose(0, 3, 1, 2)
    return context.reshape(len(keypoints), count * depth, size, size)


def warp_with_areas(image, net_size, matrix):
    """`posesdk.warping.warp_with_areas` by OpenCV alone."""
    (height, width), scale = image.shape[:2], matrix[0, 0]
    if scale < 0.5 or max(image.shape) > 32766:
        small = (max(round(height * scale), 1), max(round(width * scale), 1))
        growth = np.array([width / small[1], height / small[0]])
        matrix = matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (growth - 1) / 2
        matrix[:, :2] *= growth
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    net = cv2.warpAffine(image, matrix, net_size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cv2.cvtColor(net, cv2.COLOR_BGR2RGB)


def warp_in_float(image, net_size, matrix):
    """`posesdk.warping.warp_in_float`, the whole image along one axis after the other."""
    net = image[..., ::-1]
    for axis in (0, 1):
        positions = ((np.arange(net_size[axis]) - matrix[1 - axis, 2]) / matrix[1 - axis, 1 - axis]).astype(np.float32)
        low = np.floor(positions).astype(np.intp)
        parts = []
        for index, weight in ((low, 1 - (positions - low)), (low + 1, positions - low)):
            inside = (index >= 0) & (index < image.shape[axis])
            weight = np.where(inside, weight, 0).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            parts.append(np.take(net, index.clip(0, image.shape[axis] - 1), axis=axis).astype(np.float32) * weight)
        net = parts[0] + parts[1]
    return np.rint(net).clip(0, 255).astype(np.uint8)


def decode_center_offset(heatmaps, offsets, spec):
    """`posesdk.decode.decode_center_offset` with every pixel of the upsampled maps compared to its neighbours."""
    count = spec.keypoint_count
    kinds, places, scores = _find_centers(upsample(heatmaps[count:]), spec)
    centers, cells = places.astype(np.float32), places // STRIDE
    displacement = offsets.reshape(-1, count, 2, *offsets.shape[1:])[kinds, :, :, cells[:, 1], cells[:, 0]]
    if spec.frame == "published":
        keypoints = (centers[:, None] / np.float32(STRIDE) - displacement) * np.float32(STRIDE)
    else:
        keypoints = (cells.astype(np.float32)[:, None] - displacement) * np.float32(STRIDE) + np.float32(CELL_CENTER)
    return InitialPoses(keypoints.astype(np.float32), scores, centers, kinds)


def _find_centers(center_maps, spec):
    found = [_find_maxima(center_map, spec) for center_map in center_maps]
    if not any(map(len, found)):
        best = int(center_maps.argmax())
        kind, place = divmod(best, center_maps[0].size)
        found[kind] = np.array([place][: int(center_maps.flat[best] > 0)], dtype=np.intp)
    kinds = np.repeat(np.arange(len(found)), [len(places) for places in found])
    places = np.concatenate(found)
    values = center_maps.reshape(len(found), -1)[kinds, places]
    order = np.argsort(-values, kind="stable")
    ys, xs = np.divmod(places[order], center_maps.shape[2])
    return kinds[order], np.stack([xs, ys], axis=-1), values[order]


def _find_maxima(center_map, spec):
    peaks = center_map == cv2.dilate(center_map, np.ones((3, 3), np.uint8))
    if spec.frame == "consistent":
        peaks[[0, -1]] = False
        peaks[:, [0, -1]] = False
    candidates = np.flatnonzero(peaks & (center_map > 0) & (center_map >= spec.decode.center_threshold))
    order = np.argsort(-center_map.ravel()[candidates], kind="stable")
    return candidates[order[: spec.most_candidates]]


def suppress_poses(keypoints, scores, decode_spec):
    """`posesdk.decode.suppress_poses` with one array of all differences, where suppression is switched on."""
    extent = keypoints.max(axis=1) - keypoints.min(axis=1)  # (N, 2)
    reach = np.float32(decode_spec.nms_distance) * np.sqrt((extent**2).sum(axis=-1))
    difference = keypoints[:, None] - keypoints[None]  # (N, N, K, 2)
    distance = np.sqrt((difference**2).sum(axis=-1))
    near = (distance < reach[:, None, None]).sum(axis=-1) > decode_spec.nms_keypoints
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
    kept = np.array(kept, dtype=np.intp)
    if len(kept) > decode_spec.max_people:
        kept = kept[np.argsort(-scores[kept], kind="stable")[: decode_spec.max_people]]
    return kept
