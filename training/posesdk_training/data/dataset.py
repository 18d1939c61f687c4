"""Samples for training: which photo, which crop, which targets - all decided by the sample's number.

Sample i of a run depends on (seed, i) alone, so any number of loader processes and ranks, and a resumed run, see the
same data. Sets in shards are the exception: their photos come in the order of the stream (see `photos`).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from posesdk_training.config import TrainConfig
from posesdk_training.data.augment import (
    Placement,
    jitter_colors,
    sample_placement,
    transform_boxes,
    transform_keypoints,
    warp_image,
)
from posesdk_training.data.batches import SampleKey
from posesdk_training.data.coco import ImageRecord, KeypointSet, PersonRecord, Region
from posesdk_training.data.occluders import Occluders
from posesdk_training.data.photos import PhotoReader
from posesdk_training.data.stage_clock import StageClock
from posesdk_training.data.targets import GridPersons, encode_dense, net_to_cells

__all__ = ["KeypointDataset"]

Floats = NDArray[np.float32]


class KeypointDataset(Dataset[dict[str, Any]]):
    """Random crops of the configured sets. An image that cannot be read is skipped, with one warning."""

    def __init__(self, config: TrainConfig, clock: StageClock | None = None) -> None:
        """`clock` is told of every stage of a sample's making."""
        self._config = config
        self._clock = clock
        self._photos = PhotoReader(config)
        occluders = config.augment.occluders
        self._occluders = None if occluders is None else Occluders(occluders, config.model.skeleton)

    @property
    def skipped(self) -> int:
        """How many images and shards could not be read so far, in all loader processes of this rank."""
        return self._photos.skipped

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        if self._clock is not None:
            self._clock.start()
        rng = np.random.default_rng((self._config.seed, 0, key.index))
        photo = self._photos.draw(rng, key)
        self._lap("read+decode")
        return self._sample(rng, photo.image, photo.keypoint_set, photo.record, size=key.size)

    def _sample(
        self,
        rng: np.random.Generator,
        image: NDArray[np.uint8],
        keypoint_set: KeypointSet,
        record: ImageRecord,
        *,
        size: int,
    ) -> dict[str, Any]:
        config = self._config
        frame = config.model.frame
        placement = sample_placement(
            rng, image.shape[:2], record.persons, size=size, config=config.augment, frame=frame
        )
        pixels = warp_image(image, placement, config.augment.border)
        if self._occluders is not None and keypoint_set.config.supervised_window is None:
            pixels, record = self._occluders.paste(rng, pixels, record, placement)
        self._lap("crop+warp")
        if config.augment.photometric:
            pixels = jitter_colors(rng, pixels)
        self._lap("colour")
        persons, keypoints, areas = self._persons(record.persons, placement)
        cells = size // config.model.stride
        targets = encode_dense(persons, (cells, cells), config.targets)
        weights = targets.heatmap_weights * self._mask(record, placement, keypoint_set)
        sample = {
            "name": f"{keypoint_set.config.name}/{record.path.name}",
            "image": np.stack(cv2.split(pixels)[::-1]),
            "heatmaps": _half(targets.heatmaps),
            "heatmap_weights": _half(weights),
            "offsets": _half(targets.offsets),
            "offset_weights": targets.offset_weights,
            "keypoints": keypoints,
            "areas": areas,
        }
        self._lap("targets")
        return sample

    def _lap(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.lap(stage)

    def _persons(self, persons: tuple[PersonRecord, ...], placement: Placement) -> tuple[GridPersons, Floats, Floats]:
        config = self._config
        size = placement.size
        consistent = config.model.frame == "consistent"
        count = config.model.keypoint_count
        original = np.array([person.keypoints for person in persons], dtype=np.float32).reshape(-1, count, 3)
        moved = transform_keypoints(original, placement, config.model.skeleton.flip_indices)
        boxes = np.array([person.box for person in persons], dtype=np.float32).reshape(-1, 4)
        boxes = transform_boxes(boxes, placement)
        areas = np.array([person.area for person in persons], dtype=np.float32)
        crowd = np.array([person.is_crowd for person in persons], dtype=np.bool_)
        inside = ((moved[..., :2] >= 0) & (moved[..., :2] < size)).all(-1)
        visible = (moved[..., 2] > 0) & inside
        centers = self._centers(moved, visible, boxes)
        centers[areas < config.targets.min_center_area, 2] = 0
        grid = moved.copy()
        grid[..., :2] = net_to_cells(moved[..., :2], consistent=consistent, flipped=placement.flip)
        center_grid = centers.copy()
        center_grid[:, :2] = net_to_cells(centers[:, :2], consistent=consistent, flipped=placement.flip)
        sizes = np.sqrt(np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 16.0)) / 4
        net_areas = (areas * placement.scale**2).astype(np.float32)
        owner_cells = centers[:, :2] / 4 if consistent else center_grid[:, :2]
        grid_persons = GridPersons(
            grid, center_grid, net_areas, sizes.astype(np.float32), np.floor(owner_cells).astype(np.int64)
        )
        refined = moved.copy()
        refined[~inside, 2] = 0
        kept = (refined[..., 2] > 0).any(1) & ~crowd
        return grid_persons, refined[kept], net_areas[kept]

    def _centers(self, keypoints: Floats, visible: NDArray[np.bool_], boxes: Floats) -> Floats:
        """(P, 3) mean of the keypoints that define a person's center, net px, and 1 where there is one.

        Where nothing is labelled it is the center of the box, unless centers come from visible keypoints alone.
        """
        config = self._config.targets
        use = visible if config.center_from_visible else keypoints[..., 2] > 0
        if config.center_keypoints:
            names = self._config.model.skeleton.keypoints
            chosen = use & np.array([name in config.center_keypoints for name in names])
            use = np.where((chosen.sum(1) >= 2)[:, None], chosen, use)
        number = use.sum(1)
        total = (keypoints[..., :2] * use[..., None]).sum(1)
        valid = number >= (2 if config.center_from_visible else 0)
        points = total / np.maximum(number, 1)[:, None]
        if not config.center_from_visible:
            points = np.where(number[:, None] > 0, points, (boxes[:, :2] + boxes[:, 2:]) / 2)
        return np.concatenate([points, valid[:, None]], axis=1).astype(np.float32)

    def _mask(self, record: ImageRecord, placement: Placement, keypoint_set: KeypointSet) -> Floats:
        """(K+1, h, w) 1 where the heatmap loss may look, or (1, h, w) where all channels agree."""
        config = self._config
        cells = placement.size // config.model.stride
        consistent = config.model.frame == "consistent"
        mask = np.ones((cells, cells), dtype=np.uint8)
        for region in record.masked:
            _erase(mask, region, placement, consistent=consistent)
        window = keypoint_set.config.supervised_window
        labelled = [person.box for person in record.persons if person.is_labelled]
        if window is not None and labelled:
            allowed = np.zeros_like(mask)
            boxes = transform_boxes(np.array(labelled), placement)
            for box in boxes:
                margin = window * float(max(box[2] - box[0], box[3] - box[1]))
                left, top = np.floor((box[:2] - margin) / 4).astype(int)
                right, bottom = np.ceil((box[2:] + margin) / 4).astype(int)
                allowed[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 1
            mask &= allowed
        if keypoint_set.annotated.all():
            return mask[None].astype(np.float32)
        channels = np.append(keypoint_set.annotated, True).astype(np.float32)
        return channels[:, None, None] * mask


def _half(values: Floats) -> NDArray[np.float16]:
    """As `astype`, which takes sixteen times as long."""
    return cv2.convertFp16(values).view(np.float16)


def _erase(mask: NDArray[np.uint8], region: Region, placement: Placement, *, consistent: bool) -> None:
    matrix = placement.flipped_matrix
    if isinstance(region, dict):
        encoding = region
        if isinstance(encoding["counts"], list):
            encoding = coco_mask.frPyObjects(encoding, *encoding["size"])
        pixels = coco_mask.decode(encoding)
        to_cells = matrix / 4
        to_cells[:, 2] -= 1.5 / 4 if consistent else 0.0
        covered = cv2.warpAffine(pixels, to_cells, mask.shape[::-1], flags=cv2.INTER_LINEAR)
        mask[covered > 0] = 0
        return
    for polygon in region:
        points = np.asarray(polygon, dtype=np.float32).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
        cells = net_to_cells(points.astype(np.float32), consistent=consistent, flipped=placement.flip)
        cv2.fillPoly(mask, [np.round(cells).astype(np.int32)], 0)
