"""Writes an annotated set as WebDataset shards, one after the other, so that an interrupted run goes on."""

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from webdataset.writer import TarWriter

from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.data.formats import as_coco
from posesdk_training.data.shard_index import INDEX_FILE, ShardEntry, ShardIndex
from posesdk_training.data.shard_sample import Resize, read_sample
from posesdk_training.files import replaced, write_text

__all__ = ["ShardSettings", "write_shards"]

logger = logging.getLogger(__name__)

PROGRESS_FILE = ".progress.json"
"""The index of the shards that are whole, until all are."""

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """`shard_size` images a shard, in an order that `seed` shuffles; `resize` None keeps every byte."""

    shard_size: int = 1000
    resize: Resize | None = None
    seed: int = 0


def write_shards(
    annotations: Path,
    images: Path,
    folder: Path,
    settings: ShardSettings,
    *,
    advance: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> ShardIndex:
    """Writes the shards of an annotation file with its image folder, and their index; gives the index.

    Shards that an interrupted run finished are kept. `advance` is told of images done and of all. Images that cannot
    be read are left out and named in the index. Raises DataError for annotations or a folder that cannot be used.
    """
    if not images.is_dir():
        raise DataError(f"cannot write shards of {annotations}: there is no folder of images {images}; check its path")
    tree, digest = _read_annotations(annotations)
    order = np.random.default_rng(settings.seed).permutation(len(tree["images"]))
    entries = [tree["images"][index] for index in order]
    by_image = _by_image(tree)
    index = _started(folder, _index(tree, folder.name, {"annotations": digest, **asdict(settings)}))

    def read(entry: Tree) -> Tree | SourceError:
        return _read(images, entry, by_image.get(entry["id"], []), settings.resize)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for number in range(len(index.shards), -(-len(entries) // settings.shard_size)):
            chunk = entries[number * settings.shard_size : (number + 1) * settings.shard_size]
            samples = _Samples(pool.map(read, chunk), number * settings.shard_size)
            shard = _write_shard(folder, f"{folder.name}-{number:06d}.tar", samples)
            if not shard.images:
                (folder / shard.file).unlink(missing_ok=True)
                raise DataError(
                    f"none of the {len(chunk)} images of {folder / shard.file} could be read, the last: "
                    f"{samples.skipped[-1]}; check that {images} is the folder of {annotations}"
                )
            index = _with(index, shard, samples.skipped)
            _write_index(folder / PROGRESS_FILE, index)
            if advance is not None:
                advance(number * settings.shard_size + len(chunk), len(entries))
    _write_index(folder / INDEX_FILE, index)
    (folder / PROGRESS_FILE).unlink(missing_ok=True)
    return index


def _read_annotations(path: Path) -> tuple[Tree, str]:
    try:
        data = path.read_bytes()
        content = as_coco(json.loads(data))
        tree = dict(content.tree)
        categories = list(tree.get("categories") or ())
        if content.skeleton is not None and not any(category.get("keypoints") for category in categories):
            names = {"keypoints": list(content.skeleton.keypoints)}
            categories = [category | names for category in categories] or [{"id": 1, "name": "person", **names}]
        tree["categories"] = categories
        for annotation in tree["annotations"]:
            if annotation.get("area") is None and annotation.get("bbox"):
                annotation["area"] = content.box_area * annotation["bbox"][2] * annotation["bbox"][3]
        names_and_ids = [(entry["id"], entry["file_name"]) for entry in tree["images"]]
    except OSError as error:
        raise DataError(f"cannot read the annotations {path}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read COCO keypoints from {path}: {error!r}") from error
    if not names_and_ids:
        raise DataError(f"{path} lists no images")
    return tree, hashlib.sha256(data).hexdigest()


def _by_image(tree: Tree) -> dict[Any, list[Tree]]:
    by_image: dict[Any, list[Tree]] = defaultdict(list)
    for annotation in tree["annotations"]:
        by_image[annotation.get("image_id")].append(annotation)
    return by_image


def _index(tree: Tree, name: str, settings: Tree) -> ShardIndex:
    return ShardIndex(
        name=name,
        images=0,
        annotations=0,
        settings=settings,
        info=tree.get("info"),
        licenses=tree.get("licenses"),
        categories=tree["categories"],
        shards=(),
    )


def _started(folder: Path, index: ShardIndex) -> ShardIndex:
    """The index of what the folder holds already of these shards, else the empty one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for cut_off in folder.glob(".*.tmp"):
            cut_off.unlink()
    except OSError as error:
        raise DataError(f"cannot write shards to {folder}: {error.strerror}") from error
    found = next((folder / name for name in (INDEX_FILE, PROGRESS_FILE) if (folder / name).exists()), None)
    if found is None:
        if next(folder.glob("*.tar"), None) is not None:
            raise DataError(f"{folder} holds tar files already, without an index; give an empty folder")
        return index
    try:
        former = ShardIndex.model_validate_json(found.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {found}: {error.strerror or error}") from error
    except ValidationError as error:
        raise DataError(f"{found} is no index of shards; give an empty folder to write them anew") from error
    if former.settings != index.settings:
        raise DataError(
            f"{folder} holds shards of other annotations or settings ({found.name}); give an empty folder, or the same "
            "annotations, shard size, resize, quality and seed to go on"
        )
    for shard in former.shards:
        path = folder / shard.file
        if not path.exists() or path.stat().st_size != shard.size:
            raise DataError(f"{path} is not as {found.name} says; remove the folder to write the shards anew")
    logger.info("%s: %d shards are there already", folder, len(former.shards))
    return former


def _read(images: Path, entry: Tree, annotations: list[Tree], resize: Resize | None) -> Tree | SourceError:
    try:
        return read_sample(images / entry["file_name"], entry, annotations, resize)
    except SourceError as error:
        return error


class _Samples:
    """What is written of the results of reading, numbered from `first`; counts on the way."""

    def __init__(self, results: Iterator[Tree | SourceError], first: int) -> None:
        self._results = results
        self._first = first
        self.images = 0
        self.annotations = 0
        self.skipped: list[str] = []

    def __iter__(self) -> Iterator[Tree]:
        for number, result in enumerate(self._results, start=self._first):
            if isinstance(result, SourceError):
                logger.warning("left out: %s", result)
                self.skipped.append(str(result))
                continue
            self.images += 1
            self.annotations += len(result["json"]["annotations"])
            yield {"__key__": f"{number:09d}", **result, "json": json.dumps(result["json"]).encode()}


def _write_shard(folder: Path, name: str, samples: _Samples) -> ShardEntry:
    path = folder / name
    with replaced(path, sync=True) as temporary:
        with temporary.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as archive:
            for sample in samples:
                archive.write(sample)
        size, digest = temporary.stat().st_size, _sha256(temporary)
    return ShardEntry(file=name, images=samples.images, annotations=samples.annotations, size=size, sha256=digest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _with(index: ShardIndex, shard: ShardEntry, skipped: list[str]) -> ShardIndex:
    return index.model_copy(
        update={
            "images": index.images + shard.images,
            "annotations": index.annotations + shard.annotations,
            "skipped": (*index.skipped, *skipped),
            "shards": (*index.shards, shard),
        }
    )


def _write_index(path: Path, index: ShardIndex) -> None:
    write_text(path, index.model_dump_json(indent=1) + "\n")
