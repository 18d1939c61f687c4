"""Files of a zipped bundle on disk, for backends that want a path: one copy per content and user."""

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import IO

__all__ = ["CACHE_VARIABLE", "cache_folder", "copy_with_digest", "matches", "store"]

CACHE_VARIABLE = "POSESDK_CACHE"
"""Environment variable that names the cache folder."""
_CHUNK = 1 << 18
"""Bytes that are read at a time: they stay in the processor's cache."""

_log = logging.getLogger(__name__)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """A folder that this user can write: $POSESDK_CACHE, else the XDG cache, else a private temporary one."""
    for folder in _wanted(environment):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            _log.warning("cannot write the cache folder %s (%s); set %s to one that can", folder, error, CACHE_VARIABLE)
    return _temporary()


def store(source: BufferedIOBase, target: Path, sha256: str) -> bool:
    """Writes `source` to `target` in one step, for all processes at once; False, and nothing written, if it differs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as part:
            digest, _ = copy_with_digest(source, part)
        if digest != sha256:
            return False
        os.replace(name, target)
        return True
    finally:
        Path(name).unlink(missing_ok=True)


def matches(path: Path, size: int, sha256: str) -> bool:
    """Whether the file is there and has that content."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and copy_with_digest(file)[0] == sha256
    except OSError:
        return False


def copy_with_digest(source: BufferedIOBase, target: IO[bytes] | None = None) -> tuple[str, int]:
    """Sha256 and size of what is left in `source`, written to `target` if there is one."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_CHUNK))
    while count := source.readinto(buffer):
        digest.update(buffer[:count])
        size += count
        if target is not None:
            target.write(buffer[:count])
    return digest.hexdigest(), size


def _wanted(environment: Mapping[str, str]) -> list[Path]:
    if named := environment.get(CACHE_VARIABLE):
        return [Path(named)]
    xdg = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification has relative paths ignored
        return [Path(xdg) / "posesdk"]
    home = os.path.expanduser("~")
    return [Path(home) / ".cache" / "posesdk"] if os.path.isabs(home) else []


def _temporary() -> Path:
    """The user's folder below the temporary one; a fresh one where someone else may have made or may write it."""
    if hasattr(os, "getuid"):
        folder = Path(tempfile.gettempdir()) / f"posesdk-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="posesdk-"))
