"""Batches of a run whose photos are resident on the device."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posesdk_runtimes.errors import DataError
from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import center_rules
from posesdk_training.data.batches import Batch, SampleKey, StepSampler
from posesdk_training.data.resident.color import ColorDraws, blur_kernels, draw_colors, jitter
from posesdk_training.data.resident.persons import CropPersons, move_persons
from posesdk_training.data.resident.placement import Crops, sample_crops
from posesdk_training.data.resident.store import ResidentStore
from posesdk_training.data.resident.targets import dense_targets, supervised_cells
from posesdk_training.data.resident.warp import cell_mask, sample_pixels
from posesdk_training.settings.learning import PhaseConfig

__all__ = ["ResidentBatches", "SetRules", "require_supported"]

STREAM = 3
"""Tells the draws of resident batches from others with the same seed."""


@dataclass(frozen=True, slots=True)
class SetRules:
    """What a set says of all its photos: `annotated` (K + Q,) which channels it labels, centers among them (none of
    them where it has no annotations); `window` as `supervised_window`, or None."""

    annotated: NDArray[np.bool_]
    window: float | None


def require_supported(config: TrainConfig) -> None:
    """Raises DataError for options that resident data does not have."""
    faults = []
    if config.model.frame != "consistent":
        faults.append(f"model.frame={config.model.frame} (it has consistent)")
    if config.augment.crop.kind != "person":
        faults.append(f"augment.crop.kind={config.augment.crop.kind} (it has person)")
    if config.augment.occluders is not None:
        faults.append("augment.occluders (it has none)")
    if len(config.branches) > 1:
        faults.append(f"branches={[branch.name for branch in config.branches]} (it has 4x alone)")
    if config.targets.offset_window != "gaussian":
        faults.append(f"targets.offset_window={config.targets.offset_window} (it has gaussian)")
    if config.targets.offset_weight == "inverse_diagonal":
        faults.append("targets.offset_weight=inverse_diagonal (it has the others)")
    if config.targets.heatmap_windows != "shared":
        faults.append(f"targets.heatmap_windows={config.targets.heatmap_windows} (it has shared)")
    if faults:
        raise DataError(
            f"data.resident does not support {' and '.join(faults)}; change that, or set data.resident=false"
        )


class ResidentBatches:
    """The batches of steps `start` to the end of a run, for one rank of `world`.

    A batch depends on the seed and the number of its first sample alone, so that a resumed run goes on as if it had not
    been stopped. (Other batch sizes and numbers of processes see other crops, unlike those of `KeypointDataset`.)
    Everything random but noise is drawn on the host, so that no device ever has to answer before work goes on, and
    crops are the same on every device.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: ResidentStore,
        rules: tuple[SetRules, ...],
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        require_supported(config)
        self._config = config
        self._store = store
        self._annotated = np.stack([rule.annotated for rule in rules])  # (sets, K + Q)
        self._windows = np.array([-1.0 if rule.window is None else rule.window for rule in rules])
        self._sampler = StepSampler(config, start=start, rank=rank, world=world)
        self._noise = torch.Generator(store.device)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        self._centers = center_rules(config.model.skeleton) if config.model.centers == "dual" else None
        self._partners = torch.from_numpy(config.model.skeleton.flip_indices.astype(np.int64)).to(store.device)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Generator[Batch, None, None]:
        for keys in self._sampler:
            yield self.batch(keys)

    @torch.no_grad()
    def batch(self, keys: list[SampleKey]) -> Batch:
        """The batch of keys that have their side and phase in common."""
        config = self._config
        rng = np.random.default_rng((config.seed, STREAM, keys[0].index))
        self._noise.manual_seed(int(rng.integers(2**62)))
        photos = self._photos(rng, keys)
        crops = sample_crops(rng, self._store, photos, size=keys[0].size, config=config.augment)
        colors = draw_colors(rng, len(keys)) if config.augment.photometric else None
        return self.make(crops, colors)

    def _photos(self, rng: np.random.Generator, keys: list[SampleKey]) -> NDArray[np.int64]:
        """A random photo for each sample; in a run on one set alone, every photo once an epoch."""
        of_set = self._store.photos.of_set
        counts = np.array([len(numbers) for numbers in of_set])
        shares = self._shares(self._config.phases[keys[0].phase])
        chosen = rng.choice(len(shares), len(keys), p=shares)
        places = rng.integers(counts[chosen])
        if (shares > 0).sum() == 1:
            places = self._places_in_epoch(np.array([key.index for key in keys]), int(counts[chosen[0]]))
        return np.asarray(np.concatenate(of_set)[(counts.cumsum() - counts)[chosen] + places], np.int64)

    def _places_in_epoch(self, samples: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        epochs, places = np.divmod(samples, number)
        result = np.empty_like(places)
        for epoch in np.unique(epochs):
            result[epochs == epoch] = self._epoch_order(int(epoch), number)[places[epochs == epoch]]
        return result

    def _epoch_order(self, epoch: int, number: int) -> NDArray[np.int64]:
        if self._order[0] != epoch or len(self._order[1]) != number:
            self._order = (epoch, np.random.default_rng((self._config.seed, 2, epoch)).permutation(number))
        return self._order[1]

    def _shares(self, phase: PhaseConfig) -> NDArray[np.float64]:
        names = [entry.name for entry in self._config.data.sets]
        shares = np.array([phase.mixture.get(name, 0.0) for name in names])
        return np.asarray(shares / shares.sum(), np.float64)

    @torch.no_grad()
    def make(self, crops: Crops, colors: ColorDraws | None) -> Batch:
        """The batch of given crops; without `colors` as the photos have them."""
        config, store = self._config, self._store
        persons = self._persons(crops)
        origins, to_photo = crops.sources(store.photos)
        sampled = sample_pixels(
            store.pixels,
            self._sent(origins),
            self._sent(to_photo.astype(np.float32)),
            size=crops.size,
            border=config.augment.border,
        )
        side = crops.size // config.model.stride
        heatmaps, weights, offsets, offset_weights = dense_targets(persons, side, config.targets)
        mask = ~cell_mask(sampled[..., 3], config.model.stride)
        weights = weights * self._supervised(crops, persons, mask)
        points = torch.cat([persons.keypoints[..., :2], self._adapted(persons)[..., None]], dim=-1)
        return Batch(
            self._images(sampled[..., :3], colors),
            heatmaps,
            weights,
            offsets,
            offset_weights,
            list(points.unbind()),
            list(persons.areas.unbind()),
            tuple(store.photos.names[number] for number in crops.photos),
        )

    def _persons(self, crops: Crops) -> CropPersons:
        table = self._store.persons
        first, counts = table.first[crops.photos], table.counts[crops.photos]
        places = np.arange(max(1, int(counts.max())))
        exists = places < counts[:, None]
        rows = np.where(exists, first[:, None] + places, len(table.boxes))  # the last row is nobody
        figures = table.figures.index_select(0, self._sent(rows.ravel())).view(*rows.shape, -1)
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

    def _adapted(self, persons: CropPersons) -> Tensor:
        """(B, P, K) visibility for the adaptation: 0 outside the crop, in crowds and for the padding."""
        use = persons.inside & (persons.exists & ~persons.is_crowd)[..., None]
        return persons.keypoints[..., 2] * use

    def _supervised(self, crops: Crops, persons: CropPersons, mask: Tensor) -> Tensor:
        """(B, 1 or K+Q, h, w) 1 where the heatmap loss may look; one channel where all of the batch agree."""
        sets = self._store.photos.set_index[crops.photos]
        windows = self._windows[sets]
        if (windows >= 0).any():
            mask = mask & supervised_cells(persons, self._sent(windows.astype(np.float32)), mask.shape[1])
        annotated = self._annotated[sets]
        if annotated.all():
            return mask[:, None].float()
        return (mask[:, None] & self._sent(annotated)[:, :, None, None]).float()

    def _images(self, sampled: Tensor, colors: ColorDraws | None) -> Tensor:
        """(B, 3, S, S) uint8 RGB in the memory order of channels last."""
        if colors is None:
            values = sampled.round()
        else:
            values = jitter(
                sampled,
                *(self._sent(value.astype(np.float32)) for value in (colors.mix, colors.shift, colors.mean_share)),
                blur=(self._sent(colors.blurred), self._sent(blur_kernels(colors.blur_sigmas).astype(np.float32))),
                noise=(self._sent(colors.noisy), self._sent(colors.noise_deviations.astype(np.float32))),
                generator=self._noise,
            )
        return values.clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)

    def _sent(self, values: NDArray[np.generic]) -> Tensor:
        """Numbers from the host on the device, without waiting for it."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self._store.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._store.device, non_blocking=True)
