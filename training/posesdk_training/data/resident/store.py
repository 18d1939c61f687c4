"""Photos and records of a run, resident on a device."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.data.records import PersonRecord
from posesdk_training.data.resident.photos import LEVELS, PhotoSource, pack_levels

__all__ = ["PersonTable", "PhotoTable", "ResidentStore", "load_store"]

logger = logging.getLogger(__name__)

MIB = 2**20
PROBED = 16
"""Photos that are decoded to estimate the memory of all."""
SHARE = 0.75
"""Of the free memory, what the photos may take: the network and its activations need the rest."""

Block = tuple[NDArray[np.uint8], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class PhotoTable:
    """On the host, per photo n and level l: `starts` (n, l) its first pixel in the store, `sizes` (n, l, 2) w, h.

    A level that is not kept has size 0. `of_set[s]` holds the numbers of the photos of set s, and `set_index` (n,) the
    other way round; `names` says which photos they are.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    of_set: tuple[NDArray[np.int64], ...]
    set_index: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PersonTable:
    """Persons of all photos, one after the other: photo n has `counts[n]` from `first[n]`.

    `labelled` lists the numbers of those with a labelled keypoint, likewise by `labelled_first`, `labelled_counts`;
    `boxes` (P, 4) xyxy orig px. These lie on the host. `figures` (P + 1, 3K + 7) lies on the device: keypoints x, y,
    v, box, area, 1 for a crowd, 1 for labelled; its last row is nobody.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    labelled: NDArray[np.int64]
    labelled_first: NDArray[np.int64]
    labelled_counts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    figures: Tensor


@dataclass(frozen=True, slots=True)
class ResidentStore:
    """`pixels` (n,) int32 on the device, four bytes R, G, B, mask each; which photo lies where; and the persons."""

    pixels: Tensor
    photos: PhotoTable
    persons: PersonTable

    @property
    def device(self) -> torch.device:
        """Where the pixels lie."""
        return self.pixels.device


def load_store(
    sources: Sequence[PhotoSource], names: Sequence[str], *, smallest_crop: int, device: torch.device
) -> ResidentStore:
    """Decodes all photos of the sets `names` and takes them to `device`.

    Photos that cannot be read are left out, with a warning. Raises DataError where the memory does not suffice.
    """
    if not sources:
        raise DataError(f"the data sets {', '.join(names)} have no photos")
    _check_memory(_estimate(sources, smallest_crop), device)
    blocks = _decode_all(sources, smallest_crop)
    kept = [(source, block) for source, block in zip(sources, blocks, strict=True) if block is not None]
    del blocks
    if len(kept) < len(sources):
        logger.warning("%d of %d photos could not be read and are left out", len(sources) - len(kept), len(sources))
    had, has = ({source.set_index for source in some} for some in (sources, [source for source, _ in kept]))
    if empty := sorted(had - has):
        raise DataError(
            f"none of the photos of the data sets {', '.join(names[index] for index in empty)} could be read; "
            "check that the folders are those that the annotations belong to"
        )
    held = [source for source, _ in kept]
    set_index = np.array([source.set_index for source in held], dtype=np.int64)
    starts, sizes, pixels = _join([block for _, block in kept], device)
    of_set = tuple(np.flatnonzero(set_index == index) for index in range(len(names)))
    logger.info("%d photos resident on %s: %.0f MiB", len(held), device, 4 * pixels.numel() / MIB)
    photos = PhotoTable(starts, sizes, of_set, set_index, tuple(source.name for source in held))
    return ResidentStore(pixels, photos, _person_table([source.persons for source in held], device))


def _decode_all(sources: Sequence[PhotoSource], smallest_crop: int) -> list[Block | None]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        decoded = pool.map(lambda source: _decode(source, smallest_crop), sources)
        console = Console(stderr=True)
        shown = track(decoded, "decoding", len(sources), console=console, disable=not console.is_terminal)
        return list(shown)


def _decode(source: PhotoSource, smallest_crop: int) -> Block | None:
    try:
        return pack_levels(source.decode(), smallest_crop)
    except SourceError as error:
        logger.warning("skipped: %s", error)
        return None


def _estimate(sources: Sequence[PhotoSource], smallest_crop: int) -> int:
    """Bytes that all photos take, by some of them from all over the list."""
    step = max(1, len(sources) // PROBED)
    probed = [_probe(source, smallest_crop) for source in islice(sources, 0, None, step)]
    readable = [size for size in probed if size > 0]
    return int(np.mean(readable) * len(sources)) if readable else 0


def _probe(source: PhotoSource, smallest_crop: int) -> int:
    try:
        return int(pack_levels(source.decode(), smallest_crop)[0].nbytes)
    except SourceError:
        return 0


def _check_memory(needed: int, device: torch.device) -> None:
    logger.info("photos will take about %.0f MiB of %s", needed / MIB, device)
    free = _free_bytes(device)
    if free is not None and needed > SHARE * free:
        raise DataError(
            f"data.resident: the photos take about {needed / MIB:.0f} MiB and {device} has {free / MIB:.0f} MiB free, "
            f"of which they may take {SHARE:.0%}; leave out sets, pack smaller photos with "
            "`posesdk-train pack --long-side`, or set data.resident=false"
        )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            entries = dict(line.split(":", 1) for line in file)
        return int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _join(blocks: list[Block | None], device: torch.device) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
    """Starts and sizes of all levels, and the pixels on the device; the blocks are given up one by one."""
    starts = np.zeros((len(blocks), len(LEVELS)), dtype=np.int64)
    sizes = np.zeros((len(blocks), len(LEVELS), 2), dtype=np.int64)
    total = sum(len(block[0]) for block in blocks if block is not None)
    pixels = torch.empty(total, dtype=torch.int32, device=device)
    position = 0
    for number, block in enumerate(blocks):
        assert block is not None
        data, levels = block
        areas = np.array([width * height for width, height in levels])
        starts[number, : len(levels)] = position + np.concatenate([[0], areas.cumsum()[:-1]])
        sizes[number, : len(levels)] = levels
        pixels[position : position + len(data)] = torch.from_numpy(data.view(np.int32)[:, 0]).to(device)
        position += len(data)
        blocks[number] = None
    return starts, sizes, pixels


def _person_table(photos: list[tuple[PersonRecord, ...]], device: torch.device) -> PersonTable:
    persons = [person for photo in photos for person in photo]
    counts = np.array([len(photo) for photo in photos], dtype=np.int64)
    is_labelled = np.array([person.is_labelled for person in persons], dtype=np.bool_)
    labelled_counts = np.array([sum(person.is_labelled for person in photo) for photo in photos], dtype=np.int64)
    boxes = np.array([person.box for person in persons], dtype=np.float64).reshape(-1, 4)
    rows = [
        np.concatenate([person.keypoints.ravel(), person.box, [person.area, person.is_crowd, person.is_labelled]])
        for person in persons
    ]
    figures = np.array(rows, dtype=np.float32)
    return PersonTable(
        _firsts(counts),
        counts,
        np.flatnonzero(is_labelled),
        _firsts(labelled_counts),
        labelled_counts,
        boxes,
        torch.from_numpy(_with_nobody(figures)).to(device),
    )


def _firsts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(counts.cumsum() - counts, np.int64)


def _with_nobody(figures: NDArray[np.float32]) -> NDArray[np.float32]:
    width = figures.shape[1] if figures.ndim == 2 else 7
    return np.concatenate([figures.reshape(-1, width), np.zeros((1, width), np.float32)])
