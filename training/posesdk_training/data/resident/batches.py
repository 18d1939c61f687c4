"""Batches of a run whose photos are resident on the device."""

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import Batch, SampleKey, StepSampler
from posesdk_training.data.resident.color import ColorDraws, draw_colors
from posesdk_training.data.resident.placement import Crops, sample_crops
from posesdk_training.data.resident.rendering import Renderer, SetRules
from posesdk_training.data.resident.store import ResidentStore
from posesdk_training.settings.learning import PhaseConfig

__all__ = ["ResidentBatches", "SetRules", "require_supported"]

STREAM = 3
"""Tells the draws of resident batches from others with the same seed."""


def require_supported(config: TrainConfig) -> None:
    """Raises DataError for options that resident data does not have."""
    faults = []
    if config.model.frame != "consistent":
        faults.append(f"model.frame={config.model.frame} (it has consistent)")
    if config.augment.crop.kind != "person":
        faults.append(f"augment.crop.kind={config.augment.crop.kind} (it has person)")
    if config.augment.occluders is not None:
        faults.append("augment.occluders (it has none)")
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
        self._sampler = StepSampler(config, start=start, rank=rank, world=world)
        self._renderer = Renderer(config, store, rules)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Generator[Batch, None, None]:
        for keys in self._sampler:
            yield self.batch(keys)

    def batch(self, keys: list[SampleKey]) -> Batch:
        """The batch of keys that have their side and phase in common."""
        config = self._config
        rng = np.random.default_rng((config.seed, STREAM, keys[0].index))
        self._renderer.noise.manual_seed(int(rng.integers(2**62)))
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

    def make(self, crops: Crops, colors: ColorDraws | None) -> Batch:
        """The batch of given crops; without `colors` as the photos have them."""
        return self._renderer.make(crops, colors)
