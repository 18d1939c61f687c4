"""Which samples make a batch of a run, and what a batch holds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from posesdk_training.config import TrainConfig
from posesdk_training.data.views import View

__all__ = ["Batch", "Place", "SampleKey", "StepSampler", "collate"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loader stands: its rank of `world`, and how many samples of each set came before it began."""

    rank: int = 0
    world: int = 1
    taken: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleKey:
    """A sample's number in the run, its side in net px, and the phase it belongs to; its place, for streams."""

    index: int
    size: int
    phase: int
    place: Place = field(default=Place(), compare=False)


class Batch:
    """B samples. `images` (B, 3, S, S) uint8 RGB; dense targets and weights as in `DenseTargets`, batched.

    `keypoints` holds, per image, the persons of the adaptation branch (P, K, 3) in net px with v = 0 outside the crop;
    `areas` their areas (P,) in square net px; `names` say which photos they are; `views` are those of the branches
    beside 4x. Not a dataclass on purpose: mixed precision would round the fields of one, and coordinates must stay
    float32.
    """

    def __init__(
        self,
        images: torch.Tensor,
        heatmaps: torch.Tensor,
        heatmap_weights: torch.Tensor,
        offsets: torch.Tensor,
        offset_weights: torch.Tensor,
        keypoints: list[torch.Tensor],
        areas: list[torch.Tensor],
        names: tuple[str, ...] = (),
        views: tuple[View, ...] = (),
    ) -> None:
        self.images = images
        self.heatmaps = heatmaps
        self.heatmap_weights = heatmap_weights
        self.offsets = offsets
        self.offset_weights = offset_weights
        self.keypoints = keypoints
        self.areas = areas
        self.names = names
        self.views = views

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""

        def moved(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, non_blocking=True)

        return Batch(
            moved(self.images),
            moved(self.heatmaps),
            moved(self.heatmap_weights),
            moved(self.offsets),
            moved(self.offset_weights),
            [moved(value) for value in self.keypoints],
            [moved(value) for value in self.areas],
            self.names,
            tuple(view.to(device) for view in self.views),
        )


class StepSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys from step `start` to the end of the run, for one rank of `world`."""

    def __init__(self, config: TrainConfig, *, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self._config = config
        self._start = start
        self._rank = rank
        self._world = world

    def __len__(self) -> int:
        return (self._config.steps - self._start) * self._config.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        config = self._config
        place = Place(self._rank, self._world, self._taken())
        for step in range(self._start, config.steps):
            phase = config.phases.index(config.phase_at(step))
            sizes = config.phases[phase].sizes
            shares = np.array(list(sizes.values())) / sum(sizes.values())
            size = int(np.random.default_rng((config.seed, 1, step)).choice(list(sizes), p=shares))
            for part in range(config.accumulate):
                number = (step * self._world + self._rank) * config.accumulate + part
                first = number * config.batch_size
                yield [SampleKey(first + item, size, phase, place) for item in range(config.batch_size)]

    def _taken(self) -> tuple[int, ...]:
        """How many samples of each set all ranks are expected to have drawn before `start`."""
        config = self._config
        counts = dict.fromkeys((entry.name for entry in config.data.sets), 0.0)
        begin = 0
        for phase in config.phases:
            end = min(self._start, math.ceil(phase.until * config.steps))
            samples = max(0, end - begin) * config.batch_size * config.accumulate * self._world
            for name, weight in phase.mixture.items():
                counts[name] += samples * weight / sum(phase.mixture.values())
            begin = max(begin, end)
        return tuple(round(count) for count in counts.values())


def collate(samples: list[dict[str, Any]]) -> Batch:
    """Stacks samples; weight maps of one channel are widened where another sample of the batch has K+Q."""
    views = zip(*(sample.get("views", ()) for sample in samples), strict=True)
    return Batch(
        **_dense(samples),
        keypoints=[torch.from_numpy(sample["keypoints"]) for sample in samples],
        areas=[torch.from_numpy(sample["areas"]) for sample in samples],
        names=tuple(sample["name"] for sample in samples if "name" in sample),
        views=tuple(View(alike[0]["branch"], **_dense(alike)) for alike in views),
    )


def _dense(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Images, heatmaps and offsets, these with their weights."""
    channels = max(len(sample["heatmap_weights"]) for sample in samples)

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([sample[name] for sample in samples]))

    weights = [np.broadcast_to(s["heatmap_weights"], (channels, *s["heatmap_weights"].shape[1:])) for s in samples]
    return {
        "images": stack("image"),
        "heatmaps": stack("heatmaps"),
        "heatmap_weights": torch.from_numpy(np.stack(weights)),
        "offsets": stack("offsets"),
        "offset_weights": stack("offset_weights"),
    }
