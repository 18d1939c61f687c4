"""Photos with their records, out of folders and shards: which one a sample of a run is made of.

From a folder, the photo depends on the seed and the sample's number alone. From shards it is the next of the stream
that belongs to the loader process; a resumed run begins where its samples so far would have led, read in whole shards
and epochs, with an empty shuffle buffer.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from posesdk.images import decode_image, read_image
from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import SampleKey
from posesdk_training.data.coco import ImageRecord, KeypointSet, keypoint_set_of, load_keypoint_set
from posesdk_training.data.shard_index import find_shards
from posesdk_training.data.shards import RawSample, Reader, ShardStream
from posesdk_training.data.skips import SkipLog
from posesdk_training.settings.data import DatasetConfig

__all__ = ["Photo", "PhotoReader"]

ATTEMPTS = 20
"""Unreadable images in a row after which a run ends."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded image (H, W, 3) uint8 BGR as it is stored, its record, and its set."""

    image: NDArray[np.uint8]
    record: ImageRecord
    keypoint_set: KeypointSet


class PhotoReader:
    """Draws photos of the configured sets by their share. What cannot be read is skipped, with one warning."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._names = tuple(entry.name for entry in config.data.sets)
        self._shards = {entry.name: find_shards(entry.shards) for entry in config.data.sets if entry.shards is not None}
        self._sets = tuple(self._load(entry) for entry in config.data.sets)
        self._streams: dict[int, ShardStream] = {}
        self._cache = _ImageCache(config.data.cache_gib / max(1, config.data.workers))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        self._skips = SkipLog()

    @property
    def skipped(self) -> int:
        """How many images and shards could not be read so far, in all loader processes of this rank."""
        return self._skips.count

    def draw(self, rng: np.random.Generator, key: SampleKey) -> Photo:
        """The photo of a sample. Raises DataError where one after the other cannot be read."""
        mixture = self._config.phases[key.phase].mixture
        shares = np.array([mixture.get(name, 0.0) for name in self._names])
        for attempt in range(ATTEMPTS):
            set_index = int(rng.choice(len(self._names), p=shares / shares.sum()))
            if self._names[set_index] in self._shards:
                photo = self._streamed(set_index, key)
            else:
                photo = self._stored(set_index, self._image_index(rng, set_index, key, attempt))
            if photo is not None:
                return photo
        entry = self._sets[set_index].config
        raise DataError(
            f"{ATTEMPTS} images in a row could not be read, the last from {entry.shards or entry.images}; "
            "check that it is what the annotations belong to"
        )

    def _load(self, entry: DatasetConfig) -> KeypointSet:
        skeleton = self._config.model.skeleton
        if entry.shards is not None:
            tree = {"images": [], "annotations": [], "categories": list(self._shards[entry.name].categories)}
            return keypoint_set_of(entry, tree, skeleton, images=Path(), source=Path(entry.shards))
        keypoint_set = load_keypoint_set(entry, skeleton)
        if not keypoint_set.images:
            raise DataError(f"data set {entry.name!r} ({entry.annotations}) has no images")
        return keypoint_set

    def _image_index(self, rng: np.random.Generator, set_index: int, key: SampleKey, attempt: int) -> int:
        """A random image of a set; in a run on one set alone, every image once an epoch if it can be read."""
        number = len(self._sets[set_index].images)
        drawn = int(rng.integers(number))
        if attempt > 0 or sum(weight > 0 for weight in self._config.phases[key.phase].mixture.values()) > 1:
            return drawn
        epoch, position = divmod(key.index, number)
        if self._order[0] != epoch or len(self._order[1]) != number:
            self._order = (epoch, np.random.default_rng((self._config.seed, 2, epoch)).permutation(number))
        return int(self._order[1][position])

    def _stored(self, set_index: int, image_index: int) -> Photo | None:
        keypoint_set = self._sets[set_index]
        record = keypoint_set.images[image_index]
        image = self._cache.get((set_index, image_index))
        if image is None:
            try:
                image = read_image(record.path, oriented=False)  # as the annotations are
            except SourceError as error:
                self._skips.add(str(record.path), error)
                return None
            if self._config.data.cache_images:
                self._cache.put((set_index, image_index), image)
        return Photo(image, record, keypoint_set)

    def _streamed(self, set_index: int, key: SampleKey) -> Photo | None:
        raw = next(self._stream(set_index, key))
        keypoint_set = self._sets[set_index]
        path = Path(raw.shard) / raw.member
        try:
            record = self._record(raw, keypoint_set.config)
            return Photo(decode_image(raw.image, path, oriented=False), record, keypoint_set)
        except (SourceError, DataError) as error:
            self._skips.add(str(path), error)
            return None

    def _record(self, raw: RawSample, entry: DatasetConfig) -> ImageRecord:
        try:
            content = json.loads(raw.annotation)
            tree = {"images": [content["image"]], "annotations": content["annotations"]}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{raw.member} of {raw.shard} has no annotations as `posesdk-train shard` writes them: {error!r}"
            ) from error
        tree["categories"] = list(self._shards[entry.name].categories)
        # The stream sees to photos without persons, and the set as a whole knows what it annotates.
        whole = entry.model_copy(update={"only_with_persons": False, "annotated_keypoints": None})
        shard = Path(raw.shard)
        found = keypoint_set_of(whole, tree, self._config.model.skeleton, images=shard, source=shard)
        if not found.images:
            raise DataError(f"the annotations of {raw.member} in {raw.shard} cannot be used: {found.faults[0]}")
        return found.images[0]

    def _stream(self, set_index: int, key: SampleKey) -> ShardStream:
        if set_index not in self._streams:
            worker = get_worker_info()
            workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
            entry = self._sets[set_index].config
            taken = key.place.taken
            self._streams[set_index] = ShardStream(
                self._shards[entry.name],
                Reader(key.place.rank * workers + number, key.place.world * workers),
                seed=(self._config.seed, 3, set_index),
                taken=taken[set_index] if taken else 0,
                buffer=self._config.data.shuffle_buffer,
                skips=self._skips,
                accepts=_has_persons if entry.only_with_persons else None,
            )
        return self._streams[set_index]


class _ImageCache:
    """Images up to a number of GiB; which of them stay is left to chance: all are drawn alike."""

    def __init__(self, gib: float) -> None:
        self._images: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._room = int(gib * GIB)

    def get(self, key: tuple[int, int]) -> NDArray[np.uint8] | None:
        return self._images.get(key)

    def put(self, key: tuple[int, int], image: NDArray[np.uint8]) -> None:
        if image.nbytes <= self._room:
            self._images[key] = image
            self._room -= image.nbytes


def _has_persons(annotation: bytes) -> bool:
    try:
        return bool(json.loads(annotation)["annotations"])
    except (KeyError, TypeError, ValueError):
        return True  # said when it is used
