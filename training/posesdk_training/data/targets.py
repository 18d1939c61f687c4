"""Dense training targets: the encoder whose inverse is `posesdk.decode`.

Heatmaps are Gaussians around keypoints and centers; offsets are `cell - keypoint` in cells, around each center
(logocap.md 3.2, LOGO-CAP section 3.1). All coordinates here are cells, so that either frame can be encoded.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.config import TargetConfig

__all__ = ["DenseTargets", "GridPersons", "encode_dense", "net_to_cells"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GridPersons:
    """The persons of one sample on the map grid.

    `keypoints` (P, K, 3) x, y in cells and v; `centers` (P, 3) x, y in cells and 1 where the person has a center;
    `areas` (P,) annotation area in square net px; `sizes` (P,) square root of the box area in cells; `center_cells`
    (P, 2) the whole cell that holds the center.
    """

    keypoints: Floats
    centers: Floats
    areas: Floats
    sizes: Floats
    center_cells: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DenseTargets:
    """heatmaps (K+1, h, w) with weights (1, h, w); offsets and their weights (2K, h, w)."""

    heatmaps: Floats
    heatmap_weights: Floats
    offsets: Floats
    offset_weights: Floats


def net_to_cells(points: Floats, *, consistent: bool, flipped: bool = False) -> Floats:
    """Net px -> cells: (X - 1.5) / 4 in the consistent frame, X / 4 in the published one.

    The published frame mirrors a flipped sample's targets on the map's grid but its image on the net's, so that x is
    3 net px off there (logocap.md 4.1, row 14).
    """
    shift = np.array([1.5, 1.5] if consistent else [3.0 * flipped, 0.0], dtype=np.float32)
    return ((points - shift) / np.float32(4)).astype(np.float32)


def encode_dense(persons: GridPersons, map_size: tuple[int, int], config: TargetConfig) -> DenseTargets:
    """The targets of one sample on a map of (h, w) cells."""
    height, width = map_size
    count = persons.keypoints.shape[1]
    heatmaps = np.zeros((count + 1, height, width), dtype=np.float32)
    weights = np.full((1, height, width), config.background_weight, dtype=np.float32)
    for person in range(len(persons.keypoints)):
        size = float(persons.sizes[person])
        sigma = _sigma(size, config.keypoint_sigma, config.keypoint_sigma_per_size, config.keypoint_sigma_range)
        for index, point in enumerate(persons.keypoints[person]):
            if point[2] > 0:
                _draw_gaussian(heatmaps[index], weights[0], point, sigma)
        center_sigma = _sigma(size, config.center_sigma, config.center_sigma_per_size, config.center_sigma_range)
        if persons.centers[person, 2] > 0:
            _draw_gaussian(heatmaps[count], weights[0], persons.centers[person], center_sigma)
    offsets, offset_weights = _encode_offsets(persons, map_size, config)
    return DenseTargets(heatmaps, weights, offsets, offset_weights)


def _sigma(size: float, fixed: float, per_size: float | None, limits: tuple[float, float]) -> float:
    return fixed if per_size is None else float(np.clip(per_size * size, *limits))


def _draw_gaussian(heatmap: Floats, weights: Floats, point: Floats, sigma: float) -> None:
    height, width = heatmap.shape
    x, y = float(point[0]), float(point[1])
    if int(x) < 0 or int(y) < 0 or int(x) >= width or int(y) >= height:
        return
    left, top = max(0, int(np.floor(x - 3 * sigma - 1))), max(0, int(np.floor(y - 3 * sigma - 1)))
    right = min(width, int(np.ceil(x + 3 * sigma + 2)))
    bottom = min(height, int(np.ceil(y + 3 * sigma + 2)))
    along_x = np.exp(-((np.arange(left, right, dtype=np.float32) - x) ** 2) / (2 * sigma**2))
    along_y = np.exp(-((np.arange(top, bottom, dtype=np.float32) - y) ** 2) / (2 * sigma**2))
    patch = heatmap[top:bottom, left:right]
    np.maximum(patch, along_y[:, None] * along_x[None, :], out=patch)
    weights[top:bottom, left:right] = 1.0


def _encode_offsets(persons: GridPersons, map_size: tuple[int, int], config: TargetConfig) -> tuple[Floats, Floats]:
    height, width = map_size
    count = persons.keypoints.shape[1]
    offsets = np.zeros((count, 2, height, width), dtype=np.float32)
    weights = np.zeros((count, 2, height, width), dtype=np.float32)
    claims = np.zeros((height, width), dtype=np.float32)  # area (square) or distance (gaussian) of the owner of a cell
    for person in range(len(persons.keypoints)):
        if persons.centers[person, 2] <= 0:
            continue
        rows, columns, free = _window(persons, person, claims, config)
        if rows.size == 0:
            continue
        weight = _offset_weight(persons, person, map_size, config)
        for index, (x, y, visible) in enumerate(persons.keypoints[person]):
            inside = 0 <= x < width and 0 <= y < height
            if config.offset_window == "gaussian":
                weights[index, :, rows, columns] = 0.0  # the cell changes hands, for every keypoint
                inside = True
            if visible <= 0 or not inside:
                continue
            taken = np.ones(rows.shape, dtype=np.bool_)
            if config.offset_window == "square":
                stored = (offsets[index, :, rows, columns] != 0).any(1)
                taken = ~stored | free
            r, c = rows[taken], columns[taken]
            offsets[index, 0, r, c] = c - x
            offsets[index, 1, r, c] = r - y
            weights[index, :, r, c] = weight
    shape = (2 * count, height, width)
    return offsets.reshape(shape), weights.reshape(shape)


def _window(
    persons: GridPersons, person: int, claims: Floats, config: TargetConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Cells around a center: rows, columns, and whether this person wins the cell from its former owner."""
    height, width = claims.shape
    x, y = persons.centers[person, :2]
    if config.offset_window == "square":
        radius = config.offset_radius
        column, row = (int(value) for value in persons.center_cells[person])
        reach: float = radius
        left, right, top, bottom = column - radius, column + radius, row - radius, row + radius
    else:
        sigma = _sigma(
            float(persons.sizes[person]), config.center_sigma, config.center_sigma_per_size, config.center_sigma_range
        )
        reach = sigma * float(np.sqrt(-2 * np.log(config.offset_gaussian_level)))
        left, right = int(np.ceil(x - reach)), int(np.floor(x + reach)) + 1
        top, bottom = int(np.ceil(y - reach)), int(np.floor(y + reach)) + 1
    left, top = max(0, left), max(0, top)
    right, bottom = max(left, min(width, right)), max(top, min(height, bottom))  # empty outside of the map
    rows, columns = np.mgrid[top:bottom, left:right].reshape(2, -1)
    if config.offset_window == "square":
        area = persons.areas[person]
        former = claims[rows, columns]
        wins = (former == 0) | (former > area)
        claims[rows[wins], columns[wins]] = area
        return rows, columns, wins
    distance = (columns - x) ** 2 + (rows - y) ** 2
    former = claims[rows, columns]
    wins = (distance < reach**2) & ((former == 0) | (distance + 1e-6 < former))
    claims[rows[wins], columns[wins]] = distance[wins] + 1e-6
    return rows[wins], columns[wins], wins[wins]


def _offset_weight(persons: GridPersons, person: int, map_size: tuple[int, int], config: TargetConfig) -> float:
    area = max(float(persons.areas[person]), 1.0)
    if config.offset_weight == "inverse_sqrt_area":
        return float(1.0 / np.sqrt(area))
    if config.offset_weight == "area":
        return area / (16.0 * map_size[0] * map_size[1])
    return float(1.0 / max(persons.sizes[person], 1.0))
