"""Endless streams of the samples of WebDataset shards, shared out among loader processes and ranks."""

import itertools
import logging
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys

from posesdk_runtimes.errors import DataError
from posesdk_training.data.shard_index import Shard, ShardSet, counted, open_shard
from posesdk_training.data.skips import SkipLog

__all__ = ["Part", "RawSample", "Reader", "ShardStream"]

logger = logging.getLogger(__name__)

FIRST_SHUFFLED = 100
"""So many samples are read before the first is given; the shuffle buffer fills up on the way."""
FAULTS_IN_A_ROW = 20
"""Unreadable shards and samples one after the other, after which a run ends."""
READ_FAULTS = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


@dataclass(frozen=True, slots=True)
class Reader:
    """One of `count` loader processes on all ranks together."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Part:
    """The samples `first`, `first + step`, ... of a shard."""

    shard: Shard
    first: int = 0
    step: int = 1

    @property
    def images(self) -> int | None:
        """How many they are."""
        return None if self.shard.images is None else len(range(self.first, self.shard.images, self.step))


@dataclass(frozen=True, slots=True)
class RawSample:
    """An image file's bytes, the JSON of its annotations, and where they lie."""

    image: bytes
    annotation: bytes
    shard: str
    member: str


class ShardStream(Iterator[RawSample]):
    """The samples of a set that fall to one reader, epoch after epoch, without end.

    In every epoch each shard is read once, by one of the readers; where the shards are fewer than the readers they are
    read in parts. Order depends on `seed` and the epoch. It begins where all readers together have taken `taken`
    samples; without counts of the shards, with an epoch that bears that number. Raises DataError when the
    shards cannot be read.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        reader: Reader,
        *,
        seed: Sequence[int],
        taken: int = 0,
        buffer: int = 1000,
        skips: SkipLog | None = None,
        accepts: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._reader = reader
        self._seed = tuple(seed)
        self._buffer = buffer
        self._skips = skips or SkipLog()
        self._accepts = accepts
        self._parts = _parts(shard_set.shards, reader.count)
        self._faults = 0
        if reader.index == 0 and len(self._parts) > len(shard_set.shards):
            logger.warning(
                "%s for %d loader processes: each reads a part of a shard and passes over the rest; "
                "write smaller shards",
                counted(len(shard_set.shards), "shard"),
                reader.count,
            )
        total = shard_set.images
        epoch, position = divmod(taken, total) if total else (taken, 0)
        self._samples = self._stream(epoch, position / total if total else 0.0)

    def __next__(self) -> RawSample:
        return next(self._samples)

    def _stream(self, first_epoch: int, done: float) -> Iterator[RawSample]:
        for epoch in itertools.count(first_epoch):
            parts = self.epoch_parts(epoch)
            skip = round(done * sum(part.images or 0 for part in parts)) if epoch == first_epoch else 0
            rng = random.Random(f"{self._seed} {epoch} {self._reader.index}")
            count = 0
            for sample in _shuffled(self._read(parts, skip), self._buffer, rng):
                count += 1
                yield sample
            if count + skip == 0:
                raise DataError(
                    f"no samples in {counted(len(parts), 'shard')}, the last {parts[-1].shard.url}; "
                    "check that they were written by `posesdk-train shard`"
                )

    def epoch_parts(self, epoch: int) -> list[Part]:
        """What this reader reads in an epoch, in this order."""
        count = len(self._parts)
        order = np.random.default_rng((*self._seed, epoch)).permutation(count)
        # Turns go on from one epoch to the next, so that readers keep pace where the parts do not divide evenly.
        return [
            self._parts[index]
            for turn, index in enumerate(order, start=epoch * count)
            if turn % self._reader.count == self._reader.index
        ]

    def _read(self, parts: list[Part], skip: int) -> Iterator[RawSample]:
        for part in parts:
            if part.images is not None and skip >= part.images:
                skip -= part.images
                continue
            try:
                for number, sample in enumerate(_samples(part.shard.url)):
                    if number % part.step != part.first:
                        continue
                    if skip > 0:
                        skip -= 1
                        continue
                    raw = self._raw(sample, part.shard.url)
                    if raw is not None and (self._accepts is None or self._accepts(raw.annotation)):
                        yield raw
            except READ_FAULTS as error:
                self._skip(part.shard.url, f"the rest of shard {part.shard.url}: {error or type(error).__name__}")

    def _raw(self, sample: dict[str, Any], url: str) -> RawSample | None:
        names = [name for name in sample if not name.startswith("__")]
        images = [name for name in names if name != "json"]
        key = sample["__key__"]
        if len(images) != 1 or "json" not in names:
            self._skip(f"{url}/{key}", f"{key} of shard {url}: expected an image and a .json, found {names}")
            return None
        self._faults = 0
        return RawSample(sample[images[0]], sample["json"], url, f"{key}.{images[0]}")

    def _skip(self, name: str, fault: str) -> None:
        self._skips.add(name, fault)
        self._faults += 1
        if self._faults >= FAULTS_IN_A_ROW:
            raise DataError(f"{self._faults} faults in a row while reading shards, the last: {fault}")


def _parts(shards: tuple[Shard, ...], readers: int) -> tuple[Part, ...]:
    step = -(-readers // len(shards))
    return tuple(Part(shard, first, step) for shard in shards for first in range(step))


def _shuffled(samples: Iterator[RawSample], buffer: int, rng: random.Random) -> Iterator[RawSample]:
    if buffer <= 1:
        return samples
    stage: Callable[[Iterator[RawSample]], Iterator[RawSample]] = shuffle(
        buffer, initial=min(buffer, FIRST_SHUFFLED), rng=rng
    )
    return stage(samples)


def _samples(url: str) -> Iterator[dict[str, Any]]:
    """The members of a tar file by their common key: what `webdataset` does, with the file closed at the end."""
    yield from group_by_keys(_members(url))


def _members(url: str) -> Iterator[dict[str, Any]]:
    with open_shard(url) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield {"fname": member.name, "data": content.read(), "__url__": url}
            archive.members = []  # type: ignore[attr-defined]  # else it keeps the header of every member
