"""Built engines on disk: `<sha256 of the key>.engine`, with the key and the file's sha256 in a `.json` beside it."""

import fcntl
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from posesdk_runtimes.engines.key import EngineKey, differences
from posesdk_runtimes.errors import EngineBuildError

__all__ = ["EngineCache", "Entry", "default_cache_folder"]

LOCK_NAME = "build.lock"
_PART = ".part-"
_POLL = 0.2
"""Seconds between two looks at a lock that another process holds."""
_CHUNK = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine: its file, the fields of its key, size in bytes, sha256, and the label of its graph."""

    path: Path
    key: Mapping[str, Any]
    size: int
    sha256: str
    label: str


def default_cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder `engines` of the cache that `posesdk` uses where it can be written: $POSESDK_CACHE, XDG, ~/.cache."""
    if named := environment.get("POSESDK_CACHE"):
        return Path(named) / "engines"
    xdg = environment.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~")) / ".cache"
    return base / "posesdk" / "engines"


class EngineCache:
    """The engines in one folder. Any number of processes may use it at once; one of them builds at a time."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def find(self, key: EngineKey) -> Entry | None:
        """The whole, unchanged engine of that key, if there is one."""
        entry = self._entry(key.digest)
        return entry if entry is not None and not _damage(entry) else None

    def explain_miss(self, key: EngineKey, label: str) -> str:
        """Why `find` gives none: what differs from the nearest engine of the same graph, or of the same name."""
        there = self._entry(key.digest)
        if there is not None:
            return f"the cached engine is damaged ({_damage(there)})"
        entries = self._related(key, label)
        if not entries:
            return "no engine of this graph has been built here"
        found = [differences(entry.key, key) for entry in entries]
        nearest = min(found, key=len)
        return "built before, but " + ", ".join(nearest)

    def part(self) -> Path:
        """A new empty file in the folder, for `store`."""
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=_PART)
        os.close(handle)
        return Path(name)

    def store(self, key: EngineKey, part: Path, notes: Mapping[str, Any]) -> Entry:
        """Takes a built engine over; `notes` holds its size, sha256 and label, and whatever else is worth a line."""
        path = self.folder / f"{key.digest}.engine"
        entry = Entry(path, asdict(key), int(notes["size"]), str(notes["sha256"]), str(notes["label"]))
        if fault := _damage(Entry(part, entry.key, entry.size, entry.sha256, entry.label)):
            raise EngineBuildError(f"the engine just built is not whole ({fault}); free space and try again", "write")
        content = {"v": 1, "key": entry.key, **notes}
        record = self.part()
        record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
        os.replace(record, path.with_suffix(".json"))
        return entry

    def prune(self, keep: EngineKey, label: str) -> list[Entry]:
        """Removes the other engines of the same graph or name for the same kind of GPU; what was removed."""
        others = [entry for entry in self._related(keep, label) if entry.path.stem != keep.digest]
        removed = [entry for entry in others if entry.key["gpu"] == keep.gpu]
        for entry in removed:
            entry.path.with_suffix(".json").unlink(missing_ok=True)
            entry.path.unlink(missing_ok=True)
        return removed

    @contextmanager
    def building(self, deadline: float, on_wait: Callable[[int | None], None]) -> Iterator[None]:
        """Holds the folder's lock; `on_wait` is told the id of the process that holds it meanwhile, again and again.

        A process that dies lets go of it. Raises EngineBuildError where it is not to be had by `deadline`, in seconds
        of `time.monotonic`. What builds that were cut short left behind is removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK_NAME).open("a+", encoding="ascii") as lock:
            while not _locked(lock.fileno()):
                lock.seek(0)
                holder = lock.read().strip()
                if time.monotonic() > deadline:
                    raise EngineBuildError(
                        f"process {holder or 'unknown'} has been building an engine in {self.folder} for too long; end "
                        "it, or give a larger --timeout",
                        "timeout",
                    )
                on_wait(int(holder) if holder.isdecimal() else None)
                time.sleep(_POLL)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            for part in self.folder.glob(f"{_PART}*"):
                part.unlink(missing_ok=True)
            yield

    def _related(self, key: EngineKey, label: str) -> list[Entry]:
        """Engines of the same graph, the newest first; those of the same label where there are none."""
        entries = self._entries()
        same = [entry for entry in entries if entry.key.get("onnx_sha256") == key.onnx_sha256]
        return same + [entry for entry in entries if entry not in same and entry.label == label]

    def _entries(self) -> list[Entry]:
        records = sorted(self.folder.glob("*.json"), key=_changed, reverse=True)
        return [entry for record in records if (entry := self._entry(record.stem)) is not None]

    def _entry(self, digest: str) -> Entry | None:
        path = self.folder / f"{digest}.engine"
        try:
            content = json.loads(path.with_suffix(".json").read_bytes())
            key = {field.name: content["key"][field.name] for field in fields(EngineKey)}
            return Entry(path, key, int(content["size"]), str(content["sha256"]), str(content["label"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _damage(entry: Entry) -> str:
    """What is wrong with the file, "" if it is whole."""
    digest, size = hashlib.sha256(), 0
    try:
        with entry.path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) != entry.size:
                return f"{size} bytes instead of {entry.size}"
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        return f"{entry.path.name}: {error.strerror}"
    return "" if digest.hexdigest() == entry.sha256 else "another sha256 than when it was built"


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
