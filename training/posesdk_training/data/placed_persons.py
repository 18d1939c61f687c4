"""The persons of a photo, moved into a crop of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import CenterRules, anatomical_centers
from posesdk_training.data.augment import Placement, transform_boxes, transform_keypoints
from posesdk_training.data.records import PersonRecord
from posesdk_training.data.targets import Blank, GridPersons, net_to_cells
from posesdk_training.settings.samples import TargetConfig

__all__ = ["PlacedPersons", "place_persons"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlacedPersons:
    """P persons of a crop on the map's `grid`; the adaptation sees those A of them with a keypoint in the crop.

    `boxes` (P, 4) upright, xyxy in cells; `box_areas` (P,) square net px, whatever the rotation; `unknown` (P, Q) true
    for the centers that a labelled person must have somewhere. `keypoints` (A, K, 3) net px, v = 0 outside of the crop,
    and `areas` (A,) square net px are the adaptation's.
    """

    grid: GridPersons
    boxes: Floats
    box_areas: Floats
    unknown: NDArray[np.bool_]
    keypoints: Floats
    areas: Floats

    def blanks(self, supervised: NDArray[np.bool_]) -> tuple[Blank, ...]:
        """What is not known where the persons `supervised` (P,) are learned: all of the others, and unknown centers."""
        ignored = tuple(Blank(box) for box in self.boxes[~supervised])
        count = self.grid.keypoints.shape[1]
        return ignored + tuple(
            Blank(_keypoint_box(self.grid.keypoints[person]), count + center)
            for person, center in np.argwhere(self.unknown).tolist()
        )


def _keypoint_box(keypoints: Floats) -> Floats:
    """(4,) xyxy around the labelled ones of keypoints (K, 3)."""
    points = keypoints[keypoints[:, 2] > 0, :2]
    return np.concatenate([points.min(0), points.max(0)])


def place_persons(
    persons: tuple[PersonRecord, ...], placement: Placement, config: TrainConfig, rules: CenterRules | None
) -> PlacedPersons:
    """Persons in a crop; with `rules` they have a head and a body center, else the one that `targets` describes."""
    size, count = placement.size, config.model.keypoint_count
    consistent = config.model.frame == "consistent"
    original = np.array([person.keypoints for person in persons], dtype=np.float32).reshape(-1, count, 3)
    moved = transform_keypoints(original, placement, config.model.skeleton.flip_indices)
    outlines = np.array([person.box for person in persons], dtype=np.float32).reshape(-1, 4)
    boxes = transform_boxes(outlines, placement)
    areas = np.array([person.area for person in persons], dtype=np.float32)
    crowd = np.array([person.is_crowd for person in persons], dtype=np.bool_)
    inside = np.asarray(((moved[..., :2] >= 0) & (moved[..., :2] < size)).all(-1))
    if rules is None:
        centers = _single_centers(moved, inside, boxes, config)[:, None]
        unknown = np.zeros((len(persons), 1), dtype=np.bool_)
    else:
        centers, unknown = _dual_centers(original, placement, rules, config.targets)
    centers[areas < config.targets.min_center_area, :, 2] = 0
    net_areas = (areas * placement.scale**2).astype(np.float32)
    refined = moved.copy()
    refined[~inside, 2] = 0
    kept = (refined[..., 2] > 0).any(1) & ~crowd
    return PlacedPersons(
        _on_grid(moved, centers, _sizes(boxes, config.targets), net_areas, placement=placement, consistent=consistent),
        _cells(boxes.reshape(-1, 2, 2), placement, consistent).reshape(-1, 4),
        ((outlines[:, 2:] - outlines[:, :2]).prod(1) * placement.scale**2).astype(np.float32),
        unknown,
        refined[kept],
        net_areas[kept],
    )


def _on_grid(
    keypoints: Floats, centers: Floats, sizes: Floats, areas: Floats, *, placement: Placement, consistent: bool
) -> GridPersons:
    grid, center_grid = keypoints.copy(), centers.copy()
    grid[..., :2] = _cells(keypoints[..., :2], placement, consistent)
    center_grid[..., :2] = _cells(centers[..., :2], placement, consistent)
    owner_cells = centers[..., :2] / 4 if consistent else center_grid[..., :2]
    return GridPersons(grid, center_grid, areas, sizes, np.floor(owner_cells).astype(np.int64))


def _sizes(boxes: Floats, targets: TargetConfig) -> Floats:
    """(P,) sizes of persons in cells, at least one, from boxes (P, 4) xyxy in net px."""
    extent = boxes[:, 2:] - boxes[:, :2]
    sizes = extent.max(1) if targets.size_measure == "long_side" else np.sqrt(np.maximum(extent.prod(1), 0))
    return np.asarray(np.maximum(sizes / 4, 1), dtype=np.float32)


def _cells(points: Floats, placement: Placement, consistent: bool) -> Floats:
    return net_to_cells(points, consistent=consistent, flipped=placement.flip)


def _dual_centers(
    keypoints: Floats, placement: Placement, rules: CenterRules, config: TargetConfig
) -> tuple[Floats, NDArray[np.bool_]]:
    """Of keypoints in orig px: (P, 2, 3) head and body, net px, and 1 where known; (P, 2) true where labelled persons
    have none.
    """
    found = anatomical_centers(keypoints, rules, config.center_policy)
    matrix = placement.flipped_matrix
    points = found.points @ matrix[:, :2].T + matrix[:, 2]
    labelled = (keypoints[..., 2] > 0).any(1, keepdims=True)  # (P, 1)
    return np.concatenate([points, found.valid[..., None]], axis=2).astype(np.float32), labelled & ~found.valid


def _single_centers(keypoints: Floats, inside: NDArray[np.bool_], boxes: Floats, config: TrainConfig) -> Floats:
    """(P, 3) mean of the keypoints that define a person's center, net px, and 1 where there is one.

    Where nothing is labelled it is the center of the box, unless centers come from visible keypoints alone.
    """
    targets = config.targets
    use = keypoints[..., 2] > 0
    if targets.center_from_visible:
        use = use & inside
    if targets.center_keypoints:
        names = config.model.skeleton.keypoints
        chosen = use & np.array([name in targets.center_keypoints for name in names])
        use = np.where((chosen.sum(1) >= 2)[:, None], chosen, use)
    number = use.sum(1)
    total = (keypoints[..., :2] * use[..., None]).sum(1)
    valid = number >= (2 if targets.center_from_visible else 0)
    points = total / np.maximum(number, 1)[:, None]
    if not targets.center_from_visible:
        points = np.where(number[:, None] > 0, points, (boxes[:, :2] + boxes[:, 2:]) / 2)
    return np.concatenate([points, valid[:, None]], axis=1).astype(np.float32)
