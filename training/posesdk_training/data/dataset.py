"""Samples for training: which photo, which crop, which targets - all decided by the sample's number.

Sample i of a run depends on (seed, i) alone, so any number of loader processes and ranks, and a resumed run, see the
same data. Sets in shards are the exception: their photos come in the order of the stream (see `photos`).
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import center_rules, labelled_channels
from posesdk_training.data.augment import (
    Placement,
    jitter_colors,
    sample_placement,
    transform_boxes,
    warp_image,
)
from posesdk_training.data.batches import SampleKey
from posesdk_training.data.coco import ImageRecord, KeypointSet, Region
from posesdk_training.data.occluders import Occluders
from posesdk_training.data.photos import Photo, PhotoReader
from posesdk_training.data.placed_persons import PlacedPersons, place_persons
from posesdk_training.data.stage_clock import StageClock
from posesdk_training.data.targets import encode_dense, net_to_cells
from posesdk_training.data.views import enlarged, fields_of_view, filled_up, finest_scale, shrunk, zoomed
from posesdk_training.settings.branches import BranchConfig

__all__ = ["KeypointDataset"]

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What branches with one field of view see: `pixels` (n S, n S, 3) and the record that belongs to them.

    `placement` is that of the 4x view, of S net px a side, if it has this `zoom`.
    """

    pixels: Image
    record: ImageRecord
    placement: Placement
    zoom: float


@dataclass(frozen=True, slots=True)
class _Labels:
    """What is known of a scene on a map: `persons`, the `mask` (K+Q or 1, h, w) of where the heatmap loss may look, and
    the map's side over that of the 4x branch's."""

    persons: PlacedPersons
    mask: Floats
    grid_scale: float


class KeypointDataset(Dataset[dict[str, Any]]):
    """Random crops of the configured sets. An image that cannot be read is skipped, with one warning."""

    def __init__(self, config: TrainConfig, clock: StageClock | None = None) -> None:
        """`clock` is told of every stage of a sample's making."""
        self._config = config
        self._clock = clock
        self._photos = PhotoReader(config)
        occluders = config.augment.occluders
        self._occluders = None if occluders is None else Occluders(occluders, config.model.skeleton)
        self._rules = center_rules(config.model.skeleton) if config.model.centers == "dual" else None
        self._fields = fields_of_view(config.branches)

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
        placement = sample_placement(
            rng,
            photo.image.shape[:2],
            photo.record.persons,
            size=key.size,
            config=self._config.augment,
            frame=self._config.model.frame,
        )
        samples: dict[str, dict[str, Any]] = {}
        for branches in self._fields:
            samples |= self._seen(deepcopy(rng), photo, placement, branches)
        sample = samples.pop("4x")
        views = [samples[branch.name] for branch in self._config.branches if branch.name in samples]
        return sample | ({"views": views} if views else {})

    def _lap(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.lap(stage)

    def _seen(
        self, rng: np.random.Generator, photo: Photo, placement: Placement, branches: tuple[BranchConfig, ...]
    ) -> dict[str, dict[str, Any]]:
        """The samples of branches with one field of view, by their names; 4x's is complete."""
        scene = self._scene(rng, photo, zoomed(placement, branches[0].zoom), branches)
        scales = {branch.grid_scale for branch in branches}
        labels = {scale: self._labels(scene, photo.keypoint_set, scale) for scale in scales}
        samples: dict[str, dict[str, Any]] = {
            branch.name: self._dense(scene, labels[branch.grid_scale], branch) for branch in branches
        }
        if "4x" in samples:
            samples["4x"] |= {
                "name": f"{photo.keypoint_set.config.name}/{photo.record.path.name}",
                "keypoints": labels[1.0].persons.keypoints,
                "areas": labels[1.0].persons.areas,
            }
        self._lap("targets")
        return samples

    def _scene(
        self, rng: np.random.Generator, photo: Photo, placement: Placement, branches: tuple[BranchConfig, ...]
    ) -> _Scene:
        """The photo as the branch of the highest resolution sees it."""
        config = self._config.augment
        resolution = finest_scale(branches)
        finest = enlarged(placement, resolution)
        record = photo.record
        pixels = warp_image(photo.image, finest, config.border)
        if self._occluders is not None and photo.keypoint_set.config.supervised_window is None:
            pixels, record = self._occluders.paste(rng, pixels, record, finest)
        self._lap("crop+warp")
        if config.photometric:
            pixels = jitter_colors(rng, pixels, resolution)
        self._lap("colour")
        return _Scene(pixels, record, placement, branches[0].zoom)

    def _labels(self, scene: _Scene, keypoint_set: KeypointSet, grid_scale: float) -> _Labels:
        placement = enlarged(scene.placement, grid_scale)
        persons = place_persons(scene.record.persons, placement, self._config, self._rules)
        return _Labels(persons, self._mask(scene.record, placement, keypoint_set), grid_scale)

    def _dense(self, scene: _Scene, labels: _Labels, branch: BranchConfig) -> dict[str, Any]:
        """The image and the maps of a branch; persons out of its range are ignored."""
        persons, mask = labels.persons, labels.mask
        supervised = branch.supervises(persons.box_areas * np.float32((scene.zoom / labels.grid_scale) ** 2))
        grid = persons.grid if supervised.all() else persons.grid.chosen(supervised)
        height, width = mask.shape[1:]
        config = branch.targets(self._config.targets)
        targets = encode_dense(grid, (height, width), config, persons.blanks(supervised))
        pixels = shrunk(scene.pixels, round(branch.input_scale * scene.placement.size))
        if branch.stem == "4x":
            pixels = filled_up(pixels, self._config.model.input.multiple, self._config.augment.border)
        return {
            "branch": branch.name,
            "image": np.stack(cv2.split(pixels)[::-1]),
            "heatmaps": _half(targets.heatmaps),
            "heatmap_weights": _half(targets.heatmap_weights * mask),
            "offsets": _half(targets.offsets),
            "offset_weights": targets.offset_weights,
        }

    def _mask(self, record: ImageRecord, placement: Placement, keypoint_set: KeypointSet) -> Floats:
        """(K+Q, h, w) 1 where the heatmap loss may look, or (1, h, w) where all channels agree."""
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
        channels = labelled_channels(keypoint_set.annotated, self._rules)
        if channels.all():
            return mask[None].astype(np.float32)
        return channels[:, None, None].astype(np.float32) * mask


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
