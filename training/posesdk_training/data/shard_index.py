"""Where the shards of a data set lie, and the index that is written beside them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urljoin

from pydantic import BaseModel, ConfigDict, ValidationError
from webdataset.gopen import gopen
from webdataset.shardlists import expand_urls

from posesdk_runtimes.errors import DataError
from posesdk_training.settings.data import URL

__all__ = ["INDEX_FILE", "Shard", "ShardEntry", "ShardIndex", "ShardSet", "counted", "find_shards", "open_shard"]

logger = logging.getLogger(__name__)

INDEX_FILE = "index.json"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShardEntry(_Model):
    """One tar file: its name beside the index, what it holds, its size in bytes and its sha256."""

    file: str
    images: int
    annotations: int
    size: int
    sha256: str


class ShardIndex(_Model):
    """What lies beside the shards of a set.

    `categories`, `info` and `licenses` are those of the COCO file. `skipped` names the images that could not be read
    and were left out. `settings` says what the shards were made of.
    """

    format: Literal["posesdk-shards"] = "posesdk-shards"
    version: Literal[1] = 1
    name: str
    images: int
    annotations: int
    skipped: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    info: Any = None
    licenses: Any = None
    categories: list[dict[str, Any]]
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A path or URL, and how many samples with how many annotations it holds if that is known."""

    url: str
    images: int | None = None
    annotations: int | None = None


@dataclass(frozen=True, slots=True)
class ShardSet:
    """All shards of a set with the categories of its annotations, none where there is no index."""

    shards: tuple[Shard, ...]
    categories: tuple[dict[str, Any], ...]

    @property
    def images(self) -> int | None:
        """The number of samples, where that of every shard is known."""
        counts = [shard.images for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def annotations(self) -> int | None:
        """The number of annotations, where that of every shard is known."""
        counts = [shard.annotations for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)


def find_shards(source: str) -> ShardSet:
    """The shards of a folder with an index, of an index file or URL, or of a pattern with braces.

    Where a pattern names files beside an index, it takes their counts from it. Raises DataError for a folder without an
    index, an index that is none, and a pattern without a file.
    """
    if URL.match(source):
        return _indexed(source) if source.endswith("/" + INDEX_FILE) else _listed(source)
    path = Path(source)
    if path.is_dir():
        path = path / INDEX_FILE
        if not path.exists():
            raise DataError(
                f"{source} has no {INDEX_FILE}: it is no folder of shards, or `posesdk-train shard` was interrupted; "
                "give that command again, or name the tar files as a pattern"
            )
    return _indexed(str(path)) if path.name == INDEX_FILE else _listed(source)


def _indexed(source: str) -> ShardSet:
    index = _read_index(source)
    is_url = URL.match(source) is not None
    shards = tuple(
        Shard(
            urljoin(source, entry.file) if is_url else str(Path(source).with_name(entry.file)),
            entry.images,
            entry.annotations,
        )
        for entry in index.shards
    )
    if not shards:
        raise DataError(f"{source} names no shards")
    return ShardSet(shards, tuple(index.categories))


def _read_index(source: str) -> ShardIndex:
    try:
        with open_shard(source) as stream:
            return ShardIndex.model_validate_json(stream.read())
    except OSError as error:
        raise DataError(
            f"cannot read the index of shards {source}: {error.strerror or error}; check shards in data.sets"
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise DataError(
            f"{source} is no index as `posesdk-train shard` writes it ({where}: {fault['msg']}); write the shards anew"
        ) from error


def _listed(source: str) -> ShardSet:
    try:
        urls = expand_urls(source)
    except (AssertionError, ValueError) as error:
        raise DataError(f"cannot expand the pattern of shards {source}: {error}") from error
    local = [Path(url) for url in urls if not URL.match(url)]
    if len(local) == len(urls) and not any(path.exists() for path in local):
        raise DataError(_missing(source, urls))
    index = local[0].with_name(INDEX_FILE) if local else None
    if index is None or not index.exists():
        logger.warning("shards %s have no index: skeleton and epochs are not checked", source)
        return ShardSet(tuple(Shard(url) for url in urls), ())
    known = _read_index(str(index))
    counts = {str(index.with_name(entry.file)): (entry.images, entry.annotations) for entry in known.shards}
    shards = tuple(Shard(url, *counts.get(str(Path(url)), (None, None))) for url in urls)
    return ShardSet(shards, tuple(known.categories))


def _missing(source: str, urls: list[str]) -> str:
    if urls == [source]:
        kind = "tar file" if Path(source).suffix else "folder"
        return f"there is no {kind} of shards {source}; check shards in data.sets, and data.root"
    return (
        f"none of the {counted(len(urls), 'shard')} that {source} names exists, such as {urls[0]}; "
        "check shards in data.sets, and data.root"
    )


def counted(count: int, noun: str) -> str:
    """1 shard, 2 shards."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def open_shard(url: str) -> IO[bytes]:
    """A path, or a URL through webdataset's opener. Raises OSError."""
    if not URL.match(url):
        return Path(url).open("rb")
    stream: IO[bytes] = gopen(url)
    return stream
