"""Dense training targets: the encoder whose inverse is `posesdk.decode`.

Heatmaps are Gaussians around keypoints and centers; offsets are `cell - keypoint` in cells, around each of a person's
centers (LOGO-CAP, section 3.1; DAC, section 3.1). All coordinates here are cells, so that either frame can be encoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk.spec import STRIDE
from posesdk_training.settings.samples import TargetConfig

__all__ = ["Blank", "DenseTargets", "GridPersons", "encode_dense", "net_to_cells"]

Floats = NDArray[np.float32]
MIN_DIAGONAL = 16.0
"""Net px; smaller persons do not count more."""
MEASURED_KEYPOINTS = 3
"""Labelled keypoints that a person's extent is read off."""

Window = tuple[int, int, int, int, int]
"""A channel, and the first and last (exclusive) columns and rows of what was drawn into it."""


@dataclass(frozen=True, slots=True)
class GridPersons:
    """The persons of one sample on the map grid.

    `keypoints` (P, K, 3) x, y in cells and v; `centers` (P, Q, 3) x, y in cells and 1 where the person has that center;
    `areas` (P,) annotation area in square net px; `sizes` (P,) in cells, of the box as `targets.size_measure` says;
    `center_cells` (P, Q, 2) the whole cell that holds the center.
    """

    keypoints: Floats
    centers: Floats
    areas: Floats
    sizes: Floats
    center_cells: NDArray[np.int64]

    def chosen(self, which: NDArray[np.bool_]) -> "GridPersons":
        """Those of the persons for whom `which` (P,) is true."""
        return GridPersons(
            self.keypoints[which],
            self.centers[which],
            self.areas[which],
            self.sizes[which],
            self.center_cells[which],
        )


@dataclass(frozen=True, slots=True)
class Blank:
    """Cells in `box` (4,), x0, y0, x1, y1 in cells, of which nobody knows what `channel` should show (None: any one).

    The windows that are drawn there for persons are supervised all the same.
    """

    box: Floats
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class DenseTargets:
    """heatmaps (K+Q, h, w), offsets and their weights (2KQ, h, w); weights of heatmaps (1, h, w), or (K+Q, h, w) where
    channels differ, by blanks or `targets.heatmap_windows`.

    Offsets stand by center, then by keypoint: [center, keypoint, xy].
    """

    heatmaps: Floats
    heatmap_weights: Floats
    offsets: Floats
    offset_weights: Floats


def net_to_cells(points: Floats, *, consistent: bool, flipped: bool = False) -> Floats:
    """Net px -> cells: (X - 1.5) / 4 in the consistent frame, X / 4 in the published one.

    The published frame mirrors a flipped sample's targets on the map's grid but its image on the net's, so that x is
    3 net px off there.
    """
    shift = np.array([1.5, 1.5] if consistent else [3.0 * flipped, 0.0], dtype=np.float32)
    return ((points - shift) / np.float32(4)).astype(np.float32)


def encode_dense(
    persons: GridPersons, map_size: tuple[int, int], config: TargetConfig, blanks: Sequence[Blank] = ()
) -> DenseTargets:
    """The targets of one sample on a map of (h, w) cells."""
    height, width = map_size
    count, centers = persons.keypoints.shape[1], persons.centers.shape[1]
    heatmaps = np.zeros((count + centers, height, width), dtype=np.float32)
    windows: list[Window] = []
    for person, keypoints in enumerate(persons.keypoints):
        size = float(persons.sizes[person])
        sigma = _sigma(size, config.keypoint_sigma, config.keypoint_sigma_per_size, config.keypoint_sigma_range)
        visible = np.flatnonzero(keypoints[:, 2] > 0)
        windows += _draw_gaussians(heatmaps, visible, keypoints[visible], sigma)
        sigma = _sigma(size, config.center_sigma, config.center_sigma_per_size, config.center_sigma_range)
        existing = np.flatnonzero(persons.centers[person, :, 2] > 0)
        points = persons.centers[person, existing]
        windows += _draw_gaussians(heatmaps, count + existing, points, sigma)
    weights = _heatmap_weights(heatmaps.shape, windows, config)
    if blanks:
        weights = _with_blanks(weights, count + centers, blanks, windows)
    offsets, offset_weights = _encode_offsets(persons, map_size, config)
    return DenseTargets(heatmaps, weights, offsets, offset_weights)


def _heatmap_weights(shape: tuple[int, ...], windows: list[Window], config: TargetConfig) -> Floats:
    """1 in the windows of all channels (1, h, w), or of each for itself (K+Q, h, w); `shape` is the heatmaps'."""
    shared = config.heatmap_windows == "shared"
    weights = np.full((1, *shape[1:]) if shared else shape, config.background_weight, dtype=np.float32)
    for channel, left, right, top, bottom in windows:
        weights[0 if shared else channel, top:bottom, left:right] = 1.0
    return weights


def _with_blanks(weights: Floats, channels: int, blanks: Sequence[Blank], windows: list[Window]) -> Floats:
    """Weights (1 or K+Q, h, w) for each channel, 0 in its blanks beside its windows."""
    wide = np.broadcast_to(weights, (channels, *weights.shape[1:])).copy()
    blank = np.zeros(wide.shape, dtype=np.bool_)
    for entry in blanks:
        left, top = np.maximum(np.floor(entry.box[:2]), 0).astype(np.int64).tolist()
        right, bottom = np.maximum(np.ceil(entry.box[2:]) + 1, 0).astype(np.int64).tolist()
        blank[np.s_[:] if entry.channel is None else entry.channel, top:bottom, left:right] = True
    for channel, left, right, top, bottom in windows:
        blank[channel, top:bottom, left:right] = False
    wide[blank] = 0
    return wide


def _sigma(size: float, fixed: float, per_size: float | None, limits: tuple[float, float]) -> float:
    return fixed if per_size is None else float(np.clip(per_size * size, *limits))


def _draw_gaussians(heatmaps: Floats, channels: NDArray[np.intp], points: Floats, sigma: float) -> list[Window]:
    """Draws the points (n, 3) into their channels (n,) and says where; points outside of the map are left out."""
    height, width = heatmaps.shape[1:]
    inside = (points[:, :2].astype(np.int64) >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    channels, points = channels[inside], points[inside, :2]
    along_x, along_y = _gaussian(points[:, 0], width, sigma), _gaussian(points[:, 1], height, sigma)
    exact = points.astype(np.float64)
    first = np.maximum(np.floor(exact - 3 * sigma - 1).astype(np.int64), 0)
    last = np.minimum(np.ceil(exact + 3 * sigma + 2).astype(np.int64), (width, height))
    for channel, (left, top), (right, bottom), row, column in zip(
        channels.tolist(), first.tolist(), last.tolist(), along_x, along_y, strict=True
    ):
        patch = heatmaps[channel, top:bottom, left:right]
        np.maximum(patch, column[top:bottom, None] * row[None, left:right], out=patch)
    return [
        (channel, left, right, top, bottom)
        for channel, (left, top), (right, bottom) in zip(channels.tolist(), first.tolist(), last.tolist(), strict=True)
    ]


def _gaussian(positions: Floats, length: int, sigma: float) -> Floats:
    """(n, length) a Gaussian around each of n positions."""
    distances = np.arange(length, dtype=np.float32) - positions[:, None]
    return np.asarray(np.exp(-(distances**2) / (2 * sigma**2)))


def _encode_offsets(persons: GridPersons, map_size: tuple[int, int], config: TargetConfig) -> tuple[Floats, Floats]:
    count, centers = persons.keypoints.shape[1], persons.centers.shape[1]
    offsets = np.zeros((centers, count, 2, *map_size), dtype=np.float32)
    weights = np.zeros((centers, count, 2, *map_size), dtype=np.float32)
    fill = _fill_squares if config.offset_window == "square" else _fill_gaussians
    for center in range(centers):
        fill(offsets[center], weights[center], persons, center, config)
    shape = (2 * count * centers, *map_size)
    return offsets.reshape(shape), weights.reshape(shape)


def _fill_squares(offsets: Floats, weights: Floats, persons: GridPersons, center: int, config: TargetConfig) -> None:
    """A fixed window around each person's `center`; a cell that holds an offset already goes to the smaller person.

    As published: the stored offset itself says whether a cell is taken, and one map of areas serves all keypoints.
    """
    height, width = offsets.shape[2:]
    areas = np.zeros((height, width), dtype=np.float32)
    for person, (column, row) in enumerate(persons.center_cells[:, center]):
        if persons.centers[person, center, 2] <= 0 or not (0 <= column < width and 0 <= row < height):
            continue
        reach, area = config.offset_radius, persons.areas[person]
        weight = _offset_weight(persons, person, (height, width), config)
        rows, columns = _cells(column - reach, column + reach, row - reach, row + reach, map_size=(height, width))
        for index, (x, y, visible) in enumerate(persons.keypoints[person]):
            if visible <= 0 or not (0 <= x < width and 0 <= y < height):
                continue
            stored = (offsets[index][:, rows, columns] != 0).any(0)
            wins = ~stored | (areas[rows, columns] >= area)
            r, c = rows[wins], columns[wins]
            offsets[index, 0, r, c] = c - x
            offsets[index, 1, r, c] = r - y
            weights[index, :, r, c] = weight
            areas[r, c] = area


def _fill_gaussians(offsets: Floats, weights: Floats, persons: GridPersons, center: int, config: TargetConfig) -> None:
    """A disc that grows with the person; a cell goes, for every keypoint, to the nearest center."""
    height, width = offsets.shape[2:]
    distances = np.zeros((height, width), dtype=np.float32)
    for person, (x, y, exists) in enumerate(persons.centers[:, center]):
        if exists <= 0:
            continue
        size = float(persons.sizes[person])
        sigma = _sigma(size, config.center_sigma, config.center_sigma_per_size, config.center_sigma_range)
        reach = sigma * float(np.sqrt(-2 * np.log(config.offset_gaussian_level)))
        left, right = max(0, int(np.ceil(x - reach))), min(width, int(np.floor(x + reach)) + 1)
        top, bottom = max(0, int(np.ceil(y - reach))), min(height, int(np.floor(y + reach)) + 1)
        if left >= right or top >= bottom:
            continue
        columns, rows = np.arange(left, right)[None, :], np.arange(top, bottom)[:, None]
        window = np.s_[top:bottom, left:right]
        distance = (columns - x) ** 2 + (rows - y) ** 2
        former = distances[window]
        wins = (distance < reach**2) & ((former == 0) | (distance + 1e-6 < former))
        np.copyto(former, distance + 1e-6, where=wins, casting="same_kind")
        points = persons.keypoints[person]
        visible = points[:, 2] > 0
        weight = _offset_weight(persons, person, (height, width), config)
        # The cell changes hands, for unlabelled keypoints too.
        taken = np.where(visible, np.float32(weight), np.float32(0))
        np.copyto(weights[:, :, top:bottom, left:right], taken[:, None, None, None], where=wins)
        drawn = wins & visible[:, None, None]
        x_offsets, y_offsets = columns - points[:, 0, None, None], rows - points[:, 1, None, None]
        np.copyto(offsets[:, 0, top:bottom, left:right], x_offsets, where=drawn, casting="same_kind")
        np.copyto(offsets[:, 1, top:bottom, left:right], y_offsets, where=drawn, casting="same_kind")


def _cells(
    left: int, right: int, top: int, bottom: int, *, map_size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the cells of a box that lie on the map; none where it lies outside."""
    left, top = max(0, left), max(0, top)
    right, bottom = max(left, min(map_size[1], right)), max(top, min(map_size[0], bottom))
    rows, columns = np.mgrid[top:bottom, left:right].reshape(2, -1)
    return rows, columns


def _offset_weight(persons: GridPersons, person: int, map_size: tuple[int, int], config: TargetConfig) -> float:
    area = max(float(persons.areas[person]), 1.0)
    if config.offset_weight == "inverse_sqrt_area":
        return float(1.0 / np.sqrt(area))
    if config.offset_weight == "area":
        return area / (16.0 * map_size[0] * map_size[1])
    if config.offset_weight == "inverse_diagonal":
        return 1.0 / max(_diagonal(persons, person), MIN_DIAGONAL)
    return float(1.0 / max(persons.sizes[person], 1.0))


def _diagonal(persons: GridPersons, person: int) -> float:
    """Net px, of the box around the labelled keypoints; of too few of them, of a square of the person's box's area."""
    points = persons.keypoints[person]
    labelled = points[points[:, 2] > 0, :2]
    if len(labelled) < MEASURED_KEYPOINTS:
        return STRIDE * float(np.sqrt(2) * persons.sizes[person])
    return STRIDE * float(np.hypot(*(labelled.max(0) - labelled.min(0))))
