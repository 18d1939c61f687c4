"""Files that are there whole or not at all."""

import os
from pathlib import Path

from posesdk_runtimes.errors import DataError

__all__ = ["write_bytes", "write_text"]


def write_text(path: Path, text: str) -> None:
    """A text as UTF-8; its folder is made where it is missing. Raises DataError."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """A file's content; its folder is made where it is missing. Raises DataError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; check the folder and the free space"
        ) from error
