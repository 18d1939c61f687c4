"""Resident batches of a run: where its photos come from."""

import numpy as np
import torch
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError
from posesdk_training.config import TrainConfig
from posesdk_training.data.anatomical_centers import center_rules, labelled_channels
from posesdk_training.data.resident.batches import ResidentBatches, SetRules, require_supported
from posesdk_training.data.resident.pack import PackedSets, read_packs
from posesdk_training.data.resident.photos import PhotoSource, folder_sources
from posesdk_training.data.resident.store import load_store
from posesdk_training.data.views import fields_of_view, finest_scale
from posesdk_training.settings.data import DatasetConfig

__all__ = ["resident_batches", "smallest_crop"]


def resident_batches(
    config: TrainConfig, device: torch.device, *, start: int = 0, rank: int = 0, world: int = 1
) -> ResidentBatches:
    """Takes the photos of a run to `device` and gives its batches from step `start` on, `accumulate` a step.

    Raises DataError for options and sets that resident data does not have, and where memory does not suffice.
    """
    require_supported(config)
    used = {name for phase in config.phases for name, share in phase.mixture.items() if share > 0}
    sources, rules = _packed(config, used) if config.data.pack else _from_folders(config, used)
    names = [entry.name for entry in config.data.sets]
    present = {names[source.set_index] for source in sources}
    if missing := sorted(used - present):
        where = f"packs {', '.join(map(str, config.data.pack))}" if config.data.pack else "folders"
        raise DataError(f"the {where} hold no photos of the data sets {', '.join(missing)}, which the phases draw from")
    store = load_store(sources, names, smallest_crop=smallest_crop(config), device=device)
    return ResidentBatches(config, store, rules, start=start, rank=rank, world=world)


def smallest_crop(config: TrainConfig) -> int:
    """The side, net px, in which photos are shown the smallest; a branch with a zoom shows more of them in its side."""
    sizes = [size for phase in config.phases for size, share in phase.sizes.items() if share > 0]
    finest = min(finest_scale(branches) / branches[0].zoom for branches in fields_of_view(config.branches))
    return int(finest * min(sizes))


def _from_folders(config: TrainConfig, used: set[str]) -> tuple[list[PhotoSource], tuple[SetRules, ...]]:
    from posesdk_training.data.coco import load_keypoint_set  # reads masks with pycocotools, packs do without

    streamed = [entry.name for entry in config.data.sets if entry.shards is not None and entry.name in used]
    if streamed:
        raise DataError(
            f"data.resident does not read shards (sets {', '.join(streamed)}); give annotations and images, packs, "
            "or set data.resident=false"
        )
    sources: list[PhotoSource] = []
    rules = []
    nothing = np.zeros(config.model.keypoint_count, dtype=np.bool_)
    for index, entry in enumerate(config.data.sets):
        keypoint_set = load_keypoint_set(entry, config.model.skeleton) if entry.name in used else None
        annotated = nothing if keypoint_set is None else keypoint_set.annotated
        rules.append(_rules(config, entry, annotated, entry.is_labelled))
        if keypoint_set is not None:
            sources += folder_sources(keypoint_set, index)
    return sources, tuple(rules)


def _packed(config: TrainConfig, used: set[str]) -> tuple[list[PhotoSource], tuple[SetRules, ...]]:
    names = [entry.name for entry in config.data.sets]
    packed: PackedSets = read_packs(config.data.pack, config.model.skeleton, names)
    sources = [source for source in packed.sources if names[source.set_index] in used]
    rules = [
        _rules(config, entry, np.array(packed.annotated[entry.name], dtype=np.bool_), packed.labelled[entry.name])
        for entry in config.data.sets
    ]
    return sources, tuple(rules)


def _rules(config: TrainConfig, entry: DatasetConfig, annotated: NDArray[np.bool_], labelled: bool) -> SetRules:
    centers = center_rules(config.model.skeleton) if config.model.centers == "dual" else None
    return SetRules(labelled_channels(annotated, centers) & labelled, entry.supervised_window)
