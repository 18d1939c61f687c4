"""Dense targets of a whole batch at once, equal to those of `posesdk_training.data.targets`."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from posesdk.spec import STRIDE
from posesdk_training.data.resident.persons import CropPersons
from posesdk_training.settings.samples import TargetConfig

__all__ = ["dense_targets", "supervised_cells"]

CELL_CENTER = (STRIDE - 1) / 2


def dense_targets(
    persons: CropPersons, side: int, config: TargetConfig, ignored: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heatmaps (B, K+Q, h, h), their weights (B, 1, h, h), offsets and their weights (B, 2KQ, h, h); h = `side`.

    Persons `ignored` (B, P) are not drawn, and no negatives. With them, and with two centers, some of which may be
    unknown, there are weights for every channel.
    """
    blanks = _blanks(persons, side, ignored)
    if ignored is not None:
        learned = persons.exists & ~ignored
        persons = replace(persons, exists=learned, has_center=persons.has_center & learned[..., None])
    keypoints = (persons.keypoints[..., :2] - CELL_CENTER) / STRIDE
    centers = (persons.centers - CELL_CENTER) / STRIDE
    visible = (persons.keypoints[..., 2] > 0) & persons.exists[..., None]
    sizes = persons.sizes
    sigmas = _sigmas(sizes, config.keypoint_sigma, config.keypoint_sigma_per_size, config.keypoint_sigma_range)
    center_sigmas = _sigmas(sizes, config.center_sigma, config.center_sigma_per_size, config.center_sigma_range)
    points = torch.cat([keypoints, centers], dim=2)  # (B, P, K+Q, 2)
    drawn = torch.cat([visible, persons.has_center], dim=2)
    spread = torch.cat(
        [sigmas[..., None].expand_as(visible), center_sigmas[..., None].expand_as(persons.has_center)], dim=2
    )
    heatmaps, weights = _heatmaps(points, drawn, spread, side=side, background=config.background_weight, blanks=blanks)
    offsets, offset_weights = zip(
        *(
            _offsets(keypoints, visible, persons, center, radii=_reach(center_sigmas, config), side=side, config=config)
            for center in range(centers.shape[2])
        ),
        strict=True,
    )
    return heatmaps, weights, torch.cat(offsets, dim=1), torch.cat(offset_weights, dim=1)


def _blanks(persons: CropPersons, side: int, ignored: Tensor | None) -> Tensor | None:
    """What is not known, (B, n, h, w) true for the last n channels: with `ignored` all, with two centers these.

    All channels in the boxes of persons ignored, and the unknown centers of everybody.
    """
    of_centers = _unknown_centers(persons, side) if persons.centers.shape[2] > 1 else None
    if ignored is None:
        return of_centers
    boxes = (persons.boxes - CELL_CENTER) / STRIDE
    columns, rows = _spans(boxes[..., :2], boxes[..., 2:], side)
    of_persons = _covered(rows & (ignored & persons.exists)[..., None], columns)[:, None]
    channels = persons.keypoints.shape[2] + persons.centers.shape[2]
    if of_centers is None:
        return of_persons.expand(-1, channels, -1, -1)
    of_keypoints = of_persons.expand(-1, persons.keypoints.shape[2], -1, -1)
    return torch.cat([of_keypoints, of_persons | of_centers], dim=1)


def _unknown_centers(persons: CropPersons, side: int) -> Tensor:
    """(B, Q, h, w) true in the boxes around the labelled keypoints of persons who miss that center."""
    keypoints = (persons.keypoints[..., :2] - CELL_CENTER) / STRIDE
    labelled = ((persons.keypoints[..., 2] > 0) & persons.exists[..., None])[..., None]
    low, high = (
        torch.where(labelled, keypoints, torch.inf).amin(2),
        torch.where(labelled, keypoints, -torch.inf).amax(2),
    )
    columns, rows = _spans(low, high, side)
    return torch.stack([_covered(rows & missing[..., None], columns) for missing in persons.unknown.unbind(2)], dim=1)


def _spans(low: Tensor, high: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Columns and rows (B, P, h) of the cells that boxes from `low` to `high` (B, P, 2) touch."""
    steps = torch.arange(side, device=low.device, dtype=torch.float32)
    first, last = low.floor(), high.ceil()
    columns, rows = ((steps >= first[..., axis, None]) & (steps <= last[..., axis, None]) for axis in (0, 1))
    return columns, rows


def _sigmas(sizes: Tensor, fixed: float, per_size: float | None, limits: tuple[float, float]) -> Tensor:
    return torch.full_like(sizes, fixed) if per_size is None else (per_size * sizes).clamp(*limits)


def _reach(sigmas: Tensor, config: TargetConfig) -> Tensor:
    return sigmas * math.sqrt(-2 * math.log(config.offset_gaussian_level))


def _heatmaps(
    points: Tensor, drawn: Tensor, sigmas: Tensor, *, side: int, background: float, blanks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gaussians around points (B, P, C, 2) in cells, the highest of a channel's persons in every cell.

    Of `blanks` (B, n, h, w), cells of the last n channels, those count that no window of their channel covers.
    """
    on_map = ((points > -1) & (points < side)).all(-1)  # cells are cut off towards zero
    steps = torch.arange(side, device=points.device, dtype=torch.float32)
    reach = 3 * sigmas[..., None]
    windows, profiles = [], []
    for axis in (0, 1):
        place = points[..., axis, None]  # (B, P, C, 1)
        window = (steps >= (place - reach - 1).floor()) & (steps < (place + reach + 2).ceil())
        profile = torch.exp(-(steps - place).square() / (2 * sigmas[..., None].square()))
        windows.append(window & (on_map & drawn)[..., None])
        profiles.append(profile * windows[-1])
    across, down = profiles
    batch, number, channels = drawn.shape
    heatmaps = torch.zeros(batch, channels, side, side, device=points.device)
    for person in range(number):
        heatmaps = torch.maximum(heatmaps, down[:, person, :, :, None] * across[:, person, :, None, :])
    if background == 1:
        weights = torch.ones(batch, 1, side, side, device=points.device)
    else:
        covered = _covered(windows[1].flatten(1, 2), windows[0].flatten(1, 2))
        weights = torch.where(covered, 1.0, background)[:, None]
    return heatmaps, weights if blanks is None else _without(weights, blanks, windows[1], windows[0])


def _without(weights: Tensor, blanks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weights (B, 1, h, w) for C channels, 0 in the blanks of the last ones beside their windows (B, P, C, h or w)."""
    channels, last = rows.shape[2], blanks.shape[1]
    own_rows, own_columns = (value[:, :, channels - last :].transpose(1, 2).flatten(0, 1) for value in (rows, columns))
    known = _covered(own_rows, own_columns).view(blanks.shape)
    return torch.cat([weights.expand(-1, channels - last, -1, -1), weights * (known | ~blanks)], dim=1)


def _covered(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, h, w) true where any of n rectangles, given by their rows (B, n, h) and columns (B, n, w), lies."""
    return torch.bmm(rows.float().transpose(1, 2), columns.float()) > 0.5


def _offsets(
    keypoints: Tensor,
    visible: Tensor,
    persons: CropPersons,
    center: int,
    *,
    radii: Tensor,
    side: int,
    config: TargetConfig,
) -> tuple[Tensor, Tensor]:
    """Every cell within reach of one of the persons' `center` belongs to the nearest, for all its keypoints."""
    batch, _, count = visible.shape
    centers = (persons.centers[:, :, center] - CELL_CENTER) / STRIDE  # (B, P, 2)
    steps = torch.arange(side, device=centers.device, dtype=torch.float32)
    along_x = (steps - centers[..., :1]).square()  # (B, P, w)
    along_y = (steps - centers[..., 1:]).square()
    distances = along_y[..., :, None] + along_x[..., None, :]  # (B, P, h, w)
    within = (distances < radii.square()[..., None, None]) & persons.has_center[:, :, center, None, None]
    nearest, owner = torch.where(within, distances, torch.inf).flatten(2).min(dim=1)  # (B, h * w)
    taken = nearest.isfinite()
    weights = _offset_weights(persons, side, config)[..., None] * visible  # (B, P, K)
    table = torch.cat([keypoints.flatten(2), weights], dim=2).transpose(1, 2)  # (B, 3K, P)
    picked = table.gather(2, owner[:, None].expand(-1, 3 * count, -1)) * taken[:, None]
    weight = picked[:, 2 * count :].repeat_interleave(2, dim=1)  # (B, 2K, h * w)
    grid = torch.stack([steps.repeat(side), steps.repeat_interleave(side)]).repeat(count, 1)  # (2K, h * w)
    offsets = torch.where(weight > 0, grid - picked[:, : 2 * count], 0.0)
    shape = (batch, 2 * count, side, side)
    return offsets.view(shape), weight.view(shape)


def _offset_weights(persons: CropPersons, side: int, config: TargetConfig) -> Tensor:
    """(B, P) by `config.offset_weight`."""
    areas = persons.areas.clamp(min=1.0)
    if config.offset_weight == "inverse_sqrt_area":
        return areas.rsqrt()
    if config.offset_weight == "area":
        return areas / (STRIDE**2 * side**2)
    return 1.0 / persons.sizes.clamp(min=1.0)


def supervised_cells(persons: CropPersons, windows: Tensor, side: int) -> Tensor:
    """(B, h, w) true near the box of a labelled person; everywhere where no one is or `windows` (B,) is negative.

    `windows` is each crop's `supervised_window`: the fraction of its long side by which a box grows.
    """
    boxes = persons.boxes
    long_side = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True)
    margin = windows[:, None, None] * long_side
    low = ((boxes[..., :2] - margin) / STRIDE).floor()
    high = ((boxes[..., 2:] + margin) / STRIDE).ceil()
    steps = torch.arange(side, device=boxes.device, dtype=torch.float32)
    labelled = persons.is_labelled & persons.exists
    columns, rows = (
        (steps >= low[..., axis, None]) & (steps < high[..., axis, None]) & labelled[..., None] for axis in (0, 1)
    )
    free = (windows < 0) | ~labelled.any(1)
    return _covered(rows, columns) | free[:, None, None]
