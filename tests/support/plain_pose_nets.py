"""What the SDK makes of poses for DAC's networks as the formulas stand, for tests and benchmarks to compare with."""

import numpy as np

from posesdk.dual_centers import LEVELS


def pose_context(keypoints, maps, spec):
    """`posesdk.dual_centers.pose_context`, one level after the other."""
    points = keypoints.reshape(-1, 2)
    levels = [_sample_cells(maps[name], _cells(points, level)) for level, name in enumerate(LEVELS)]
    patches = _sample_patches(maps["heatmaps"], _cells(keypoints, 0), spec.pose_nets.patch)
    extent = keypoints.max(axis=1) - keypoints.min(axis=1)  # (N, 2)
    scales = np.sqrt(np.maximum(extent[:, 0] * extent[:, 1], np.float32(16)))
    relative = (keypoints - keypoints.mean(axis=1, keepdims=True)) / scales[:, None, None]
    features = np.concatenate(levels, axis=1)
    columns = [features, patches.reshape(len(points), spec.pose_nets.patch**2)]
    seen = np.concatenate([*columns, relative.reshape(-1, 2)], axis=1)
    return seen.reshape(*keypoints.shape[:2], seen.shape[1])


def _cells(points, level):
    stride = 4 << level
    return (points - np.float32((stride - 1) / 2)) / np.float32(stride)


def _sample_cells(maps, places):
    """Writes the values (P, C) of maps (h, w, C) at `places` (P, 2), x and y in cells; zeros outside."""
    height, width, depth = maps.shape
    x_cells, x_inside, x_part = _free_taps(places[:, 0], width, 1)
    y_cells, y_inside, y_part = _free_taps(places[:, 1], height, 1)
    index = y_cells[:, :, None] * width + x_cells[:, None, :]  # (P, 2, 2)
    x_weights = np.stack([1 - x_part, x_part], axis=-1) * x_inside
    y_weights = np.stack([1 - y_part, y_part], axis=-1) * y_inside
    weights = y_weights[:, :, None] * x_weights[:, None, :]
    taps = maps.reshape(height * width, depth)[index]  # (P, 2, 2, C)
    return (taps * weights[..., None]).sum(axis=(1, 2))


def _sample_patches(maps, places, size):
    """Patches (N, K, size, size) of one cell a step around `places` (N, K, 2), x and y in cells, from maps[k].

    `maps` (K or more, h, w), zeros outside; `size` is odd.
    """
    persons, count = places.shape[:2]
    flat = places.reshape(persons * count, 2)
    x_cells, x_inside, x_part = _free_taps(flat[:, 0], maps.shape[2], size)
    y_cells, y_inside, y_part = _free_taps(flat[:, 1], maps.shape[1], size)
    channels = np.tile(np.arange(count), persons)
    cells = maps[channels[:, None, None], y_cells[:, :, None], x_cells[:, None, :]]  # (NK, size + 1, size + 1)
    cells = cells * (y_inside[:, :, None] & x_inside[:, None, :])
    rows = cells[:, :-1] + (cells[:, 1:] - cells[:, :-1]) * y_part[:, None, None]
    patches = rows[:, :, :-1] + (rows[:, :, 1:] - rows[:, :, :-1]) * x_part[:, None, None]
    return patches.reshape(persons, count, size, size)


def _free_taps(positions, cells, size):
    """The size + 1 cells (P, size + 1) below `size` samples around each position along an axis, and which ones exist.

    The third is the share (P,) of the second of any two neighbouring cells.
    """
    low = np.floor(positions)
    # However far outside: no tap exists, and the index stays within the range of integers.
    first = low.clip(-size - 1, cells + size).astype(np.intp) - size // 2
    taps = first[:, None] + np.arange(size + 1)
    return taps.clip(0, cells - 1), (taps >= 0) & (taps < cells), positions - low


def group_poses(alike, scores):
    """`posesdk.grouping.group_poses` with an array of all poses for each person."""
    order = np.argsort(-scores, kind="stable")
    left = np.ones(len(scores), dtype=bool)
    groups = []
    for best in order:
        if left[best]:
            left[best] = False
            others = order[alike[best, order] & left[order]]
            left[others] = False
            groups.append(np.concatenate([[best], others]))
    return groups
