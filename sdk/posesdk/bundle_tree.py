"""The files of a bundle, in a folder or in a stored zip; nothing is followed, inflated or trusted."""

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from posesdk.manifest import path_fault
from posesdk_runtimes.errors import BundleError

__all__ = ["Entry", "FolderTree", "Tree", "ZipTree", "entry_error", "open_tree"]

_ENCRYPTED = 0x1
"""Bit 0 of a zip entry's flags (APPNOTE 4.4.4)."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Before the content of an entry (APPNOTE 4.3.7): signature, ..., lengths of the name and of the extra field."""
_LOCAL_SIGNATURE = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a tree: its size in bytes, and its content, which the caller of `open` closes."""

    size: int
    open: Callable[[], io.BufferedIOBase]


class Tree(Protocol):
    """Named files to read; safe for several threads."""

    def entries(self) -> dict[str, Entry]:
        """Every file by name. Raises BundleError for an entry that a bundle must not hold."""
        ...

    def open(self, name: str) -> io.BufferedIOBase:
        """The file of that name; the caller closes it. Nothing but its sha256 says that it is whole."""
        ...

    def read_checked(self, name: str, limit: int) -> bytes:
        """Content of that file up to `limit` bytes, held against the checksum of the archive where there is one."""
        ...


def entry_error(bundle: Path, entry: str, fault: str, advice: str = "get or convert the bundle again") -> BundleError:
    """The error for one refused entry of a bundle."""
    return BundleError(f"refusing bundle {bundle}: entry {entry!r} {fault}; {advice}")


class FolderTree:
    """A bundle as a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> dict[str, Entry]:
        """Every regular file below the folder."""
        found: dict[str, Entry] = {}
        folders = [self._root]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    name = path.relative_to(self._root).as_posix()
                    mode = entry.stat(follow_symlinks=False)
                    _refuse(self._root, name, mode.st_mode)
                    if stat.S_ISDIR(mode.st_mode):
                        folders.append(path)
                    else:
                        found[name] = Entry(mode.st_size, partial(self.open, name))
        return found

    def open(self, name: str) -> io.BufferedIOBase:
        """The file below the folder."""
        return (self._root / name).open("rb")

    def read_checked(self, name: str, limit: int) -> bytes:
        """The file below the folder; a folder has no checksums."""
        with self.open(name) as source:
            return source.read(limit)

    def path(self, name: str) -> Path:
        """Where the file lies."""
        return self._root / name


class ZipTree:
    """A bundle as a stored zip; the archive is opened for each call, so that nothing is held or shared."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> dict[str, Entry]:
        """Every file in the archive."""
        found: dict[str, Entry] = {}
        with zipfile.ZipFile(self._path) as archive:
            for entry in archive.infolist():
                # orig_filename: zipfile cuts `filename` at a NUL.
                name = entry.orig_filename.removesuffix("/") if entry.is_dir() else entry.orig_filename
                _refuse(self._path, name, entry.external_attr >> 16)
                if entry.is_dir():
                    continue
                if name in found:
                    raise entry_error(self._path, name, "stands in the archive twice")
                if entry.flag_bits & _ENCRYPTED:
                    raise entry_error(self._path, name, "is encrypted", "pack it with posesdk.bundle.write_bundle")
                if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                    raise entry_error(self._path, name, "is compressed", "pack it with posesdk.bundle.write_bundle")
                found[name] = Entry(entry.file_size, partial(_open_stored, self._path, entry))
        return found

    def open(self, name: str) -> io.BufferedIOBase:
        """The entry; reading it needs no other open archive."""
        with zipfile.ZipFile(self._path) as archive:
            return _open_stored(self._path, archive.getinfo(name))

    def read_checked(self, name: str, limit: int) -> bytes:
        """The entry, by zipfile."""
        with zipfile.ZipFile(self._path) as archive, archive.open(name) as source:
            return source.read(limit)


class _Stored(io.RawIOBase):
    """The content of a stored entry as it lies in the archive: zipfile also computes a checksum, and copies twice."""

    def __init__(self, archive: io.FileIO, size: int) -> None:
        self._archive, self._left = archive, size

    def readable(self) -> bool:
        """It is there to be read alone."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes, at most as many as there is room for."""
        count = self._archive.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        """Closes the archive."""
        self._archive.close()
        super().close()


def _open_stored(path: Path, entry: zipfile.ZipInfo) -> io.BufferedIOBase:
    with ExitStack() as opened:
        archive = opened.enter_context(io.FileIO(path))
        archive.seek(entry.header_offset)
        header = archive.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_SIGNATURE):
            raise zipfile.BadZipFile(f"entry {entry.filename!r} does not begin where the archive says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        archive.seek(name + extra, os.SEEK_CUR)
        opened.pop_all()
        return io.BufferedReader(_Stored(archive, entry.file_size))


def open_tree(path: Path) -> FolderTree | ZipTree:
    """The tree of a folder or of a file. Raises BundleError if there is neither, or it may not be looked at."""
    try:
        if path.is_dir():
            return FolderTree(path)
        if path.is_file():
            return ZipTree(path)
    except OSError as error:
        raise BundleError(f"cannot open bundle {path}: {error.strerror}; check the path and its permissions") from error
    raise BundleError(f"cannot open bundle {path}: there is no such file or folder; check the path")


def _refuse(bundle: Path, name: str, mode: int) -> None:
    if fault := path_fault(name):
        raise entry_error(bundle, name, fault)
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise entry_error(bundle, name, "is a link", "put the file itself in its place")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise entry_error(bundle, name, "is neither a file nor a folder", "remove it")
