"""What the branches of a run see and learn of given crops, made on the device as `KeypointDataset` makes it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import center_rules
from posesdk_training.data.batches import Batch
from posesdk_training.data.resident.color import ColorDraws, blur_kernels, jitter
from posesdk_training.data.resident.persons import CropPersons, move_persons
from posesdk_training.data.resident.placement import Crops
from posesdk_training.data.resident.store import ResidentStore
from posesdk_training.data.resident.targets import dense_targets, supervised_cells
from posesdk_training.data.resident.warp import cell_mask, sample_pixels
from posesdk_training.data.views import View, fields_of_view, finest_scale
from posesdk_training.settings.branches import BranchConfig

__all__ = ["Renderer", "SetRules"]


@dataclass(frozen=True, slots=True)
class SetRules:
    """What a set says of all its photos: `annotated` (K + Q,) which channels it labels, centers among them (none of
    them where it has no annotations); `window` as `supervised_window`, or None."""

    annotated: NDArray[np.bool_]
    window: float | None


@dataclass(frozen=True, slots=True)
class _Scene:
    """What branches with one field of view see: `pixels` (B, 3, n S, n S) uint8 RGB, and by the map's side over that of
    the 4x branch's which cells (B, h, w) no region without labels touches."""

    pixels: Tensor
    free: dict[float, Tensor]


class Renderer:
    """Makes batches of crops. Everything random but noise is given, so that no device has to answer."""

    def __init__(self, config: TrainConfig, store: ResidentStore, rules: tuple[SetRules, ...]) -> None:
        self.noise = torch.Generator(store.device)
        self._config = config
        self._store = store
        self._annotated = np.stack([rule.annotated for rule in rules])  # (sets, K + Q)
        self._windows = np.array([-1.0 if rule.window is None else rule.window for rule in rules])
        self._fields = fields_of_view(config.branches)
        self._targets = {branch.name: branch.targets(config.targets) for branch in config.branches}
        self._centers = center_rules(config.model.skeleton) if config.model.centers == "dual" else None
        self._partners = torch.from_numpy(config.model.skeleton.flip_indices.astype(np.int64)).to(store.device)

    @torch.no_grad()
    def make(self, crops: Crops, colors: ColorDraws | None) -> Batch:
        """The batch of given crops of the 4x branch; without `colors` as the photos have them."""
        adapted, dense = self._persons(crops), dict[str, dict[str, Tensor]]()
        for branches in self._fields:
            seen = crops.zoomed(branches[0].zoom)
            scene = self._scene(seen, colors, branches)
            for scale in scene.free:
                is_adapted = branches[0].zoom == scale == 1
                persons = adapted if is_adapted else self._persons(seen.enlarged(scale))
                alike = [branch for branch in branches if branch.grid_scale == scale]
                free = self._supervised(crops, persons, scene.free[scale])
                dense |= {branch.name: self._dense(crops, scene, persons, free, branch=branch) for branch in alike}
        points = torch.cat([adapted.keypoints[..., :2], _visibility(adapted)[..., None]], dim=-1)
        return Batch(
            **dense["4x"],
            keypoints=list(points.unbind()),
            areas=list(adapted.areas.unbind()),
            names=tuple(self._store.photos.names[number] for number in crops.photos),
            views=tuple(
                View(branch.name, **dense[branch.name]) for branch in self._config.branches if branch.name != "4x"
            ),
        )

    def _scene(self, seen: Crops, colors: ColorDraws | None, branches: tuple[BranchConfig, ...]) -> _Scene:
        """The photos as the branch of the highest resolution sees them."""
        resolution = finest_scale(branches)
        finest = seen.enlarged(resolution)
        origins, to_photo = finest.sources(self._store.photos)
        sampled = sample_pixels(
            self._store.pixels,
            self._sent(origins),
            self._sent(to_photo.astype(np.float32)),
            size=finest.size,
            border=self._config.augment.border,
        )
        scales = sorted({branch.grid_scale for branch in branches})
        masks = {scale: F.avg_pool2d(sampled[..., 3], round(resolution / scale)) for scale in scales}
        free = {scale: ~cell_mask(mask, self._config.model.stride) for scale, mask in masks.items()}
        return _Scene(self._colored(sampled[..., :3], None if colors is None else colors.at(resolution)), free)

    def _dense(
        self, crops: Crops, scene: _Scene, persons: CropPersons, free: Tensor, *, branch: BranchConfig
    ) -> dict[str, Tensor]:
        """The image and the maps of a branch; persons out of its range are ignored."""
        heatmaps, weights, offsets, offset_weights = dense_targets(
            persons, free.shape[-1], self._targets[branch.name], self._ignored(crops, branch)
        )
        images = _shrunk(scene.pixels, round(branch.input_scale * crops.size))
        if branch.stem == "4x":
            images = self._filled_up(images)
        return {
            "images": images,
            "heatmaps": heatmaps,
            "heatmap_weights": weights * free,
            "offsets": offsets,
            "offset_weights": offset_weights,
        }

    def _rows(self, crops: Crops) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(B, P) which persons of the table lie in each crop's photo, and which of these there are."""
        table = self._store.persons
        first, counts = table.first[crops.photos], table.counts[crops.photos]
        places = np.arange(max(1, int(counts.max())))
        exists = places < counts[:, None]
        return np.where(exists, first[:, None] + places, len(table.boxes)), exists  # the last row is nobody

    def _persons(self, crops: Crops) -> CropPersons:
        rows, exists = self._rows(crops)
        figures = self._store.persons.figures.index_select(0, self._sent(rows.ravel())).view(*rows.shape, -1)
        return move_persons(
            figures,
            self._sent(exists),
            self._sent(crops.matrices.astype(np.float32)),
            self._sent(crops.flips),
            size=crops.size,
            config=self._config,
            flip=self._partners,
            rules=self._centers,
        )

    def _ignored(self, crops: Crops, branch: BranchConfig) -> Tensor | None:
        """(B, P) who is out of a branch's range, in the 4x view `crops`; None where nobody is."""
        rows, exists = self._rows(crops)
        boxes = self._store.persons.boxes[rows[exists]]
        areas = np.zeros(exists.shape)
        areas[exists] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        areas *= crops.scales[:, None] ** 2
        ignored = exists & ~branch.supervises(areas.astype(np.float32))
        return self._sent(ignored) if ignored.any() else None

    def _supervised(self, crops: Crops, persons: CropPersons, free: Tensor) -> Tensor:
        """(B, 1 or K+Q, h, w) 1 where the heatmap loss may look; one channel where all of the batch agree."""
        sets = self._store.photos.set_index[crops.photos]
        windows = self._windows[sets]
        if (windows >= 0).any():
            free = free & supervised_cells(persons, self._sent(windows.astype(np.float32)), free.shape[1])
        annotated = self._annotated[sets]
        if annotated.all():
            return free[:, None].float()
        return (free[:, None] & self._sent(annotated)[:, :, None, None]).float()

    def _colored(self, sampled: Tensor, colors: ColorDraws | None) -> Tensor:
        """(B, 3, S, S) uint8 RGB in the memory order of channels last."""
        if colors is None:
            values = sampled.round()
        else:
            values = jitter(
                sampled,
                *(self._sent(value.astype(np.float32)) for value in (colors.mix, colors.shift, colors.mean_share)),
                blur=(self._sent(colors.blurred), self._sent(blur_kernels(colors.blur_sigmas).astype(np.float32))),
                noise=(self._sent(colors.noisy), self._sent(colors.noise_deviations.astype(np.float32))),
                generator=self.noise,
            )
        return values.clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)

    def _filled_up(self, images: Tensor) -> Tensor:
        """As `views.filled_up`, all of (B, 3, S, S)."""
        batch, side = len(images), images.shape[-1]
        missing = -side % self._config.model.input.multiple
        if missing == 0:
            return images
        border = self._sent(np.array(self._config.augment.border[::-1], dtype=np.uint8)).view(1, 3, 1, 1)
        filled = border.repeat(batch, 1, side + missing, side + missing)
        filled[:, :, :side, :side] = images
        return filled

    def _sent(self, values: NDArray[np.generic]) -> Tensor:
        """Numbers from the host on the device, without waiting for it."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self._store.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._store.device, non_blocking=True)


def _shrunk(images: Tensor, side: int) -> Tensor:
    """As `views.shrunk`, all of (B, 3, S, S)."""
    if images.shape[-1] == side:
        return images
    return F.avg_pool2d(images.float(), images.shape[-1] // side).round().to(torch.uint8)


def _visibility(persons: CropPersons) -> Tensor:
    """(B, P, K) visibility for the adaptation: 0 outside the crop, in crowds and for the padding."""
    use = persons.inside & (persons.exists & ~persons.is_crowd)[..., None]
    return persons.keypoints[..., 2] * use
