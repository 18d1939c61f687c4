"""The files of a bundle, in a folder or in a stored zip; nothing is followed, inflated or trusted."""

import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Protocol

from posesdk.manifest import path_fault
from posesdk_runtimes.errors import BundleError

__all__ = ["FolderTree", "Tree", "ZipTree", "entry_error", "open_tree"]

_ENCRYPTED = 0x1
"""Bit 0 of a zip entry's flags (APPNOTE 4.4.4)."""


class Tree(Protocol):
    """Named files to read; safe for several threads."""

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file by name. Raises BundleError for an entry that a bundle must not hold."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """The file of that name; the caller closes it."""
        ...


def entry_error(bundle: Path, entry: str, fault: str, advice: str = "get or convert the bundle again") -> BundleError:
    """The error for one refused entry of a bundle."""
    return BundleError(f"refusing bundle {bundle}: entry {entry!r} {fault}; {advice}")


class FolderTree:
    """A bundle as a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        """Size of every regular file below the folder."""
        found: dict[str, int] = {}
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
                        found[name] = mode.st_size
        return found

    def open(self, name: str) -> IO[bytes]:
        """The file below the folder."""
        return (self._root / name).open("rb")

    def path(self, name: str) -> Path:
        """Where the file lies."""
        return self._root / name


class ZipTree:
    """A bundle as a stored zip; the archive is opened for each call, so that nothing is held or shared."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        """Size of every file in the archive."""
        found: dict[str, int] = {}
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
                found[name] = entry.file_size
        return found

    def open(self, name: str) -> IO[bytes]:
        """The entry; reading it needs no other open archive."""
        with zipfile.ZipFile(self._path) as archive:
            return archive.open(name)


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
