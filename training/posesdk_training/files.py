"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError

__all__ = [
    "encode_picture",
    "read_json",
    "replaced",
    "require_files",
    "require_folder",
    "require_folders",
    "require_picture",
    "write_bytes",
    "write_json",
    "write_picture",
    "write_text",
]


PICTURES = (".png", ".jpg", ".jpeg")


def require_folders(*paths: Path | None) -> None:
    """Before work that may take an hour: raises DataError for a file to write that is a folder or has none."""
    for path in paths:
        if path is not None and path.is_dir():
            raise DataError(f"cannot write {path}: it is a folder; give the name of a file")
        if path is not None and not path.parent.is_dir():
            raise DataError(f"cannot write {path}: there is no folder {path.parent}; make it first")


def require_folder(path: Path | None) -> None:
    """As `require_folders`, for a folder to write into. Raises DataError for a file, or a folder without a parent."""
    if path is not None and path.exists() and not path.is_dir():
        raise DataError(f"cannot write into {path}: it is a file; give a folder")
    if path is not None and not path.is_dir():
        require_folders(path)


def require_picture(path: Path) -> None:
    """As `require_folders`, for a picture. Raises DataError for a name that does not end as one."""
    if path.suffix.lower() not in PICTURES:
        raise DataError(f"cannot write {path}: it is to be a picture; name it .png or .jpg")
    require_folders(path)


def require_files(given: Mapping[str, Path | None]) -> None:
    """Before a model is opened: raises DataError for a path that is no file and names the option that gives it."""
    for option, path in given.items():
        if path is not None and path.is_dir():
            raise DataError(f"cannot read {path}: it is a folder; give a file with {option}")
        if path is not None and not path.exists():
            raise DataError(f"cannot read {path}: there is no such file; check {option}")


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file, which is called `what` in the error. Raises DataError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {what} {path}: {error.strerror or error}; check the path") from error
    except ValueError as error:
        raise DataError(f"cannot read {what} {path}: not a JSON file ({error})") from error


@contextmanager
def replaced(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A name to write under, which takes the place of `path` when the block ends, and is removed when it fails.

    With `sync` the content is on the disk before. Raises DataError when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write {path}: {reason}; check the folder and the free space") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """A file's content; its folder is made where it is missing. Raises DataError."""
    with replaced(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """A text as UTF-8; its folder is made where it is missing. Raises DataError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Plain values as indented JSON; the folder is made where it is missing. Raises DataError."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_picture(path: Path, picture: NDArray[np.uint8], settings: tuple[int, ...] = ()) -> None:
    """A picture (H, W, 3) uint8 BGR, see `encode_picture`; its folder is made where it is missing. Raises DataError."""
    write_bytes(path, encode_picture(path.suffix, picture, settings))


def encode_picture(suffix: str, picture: NDArray[np.uint8], settings: tuple[int, ...] = ()) -> bytes:
    """A picture (H, W), (H, W, 3) BGR or (H, W, 4) BGRA uint8 in the format of `suffix` (.png, .jpg, .webp).

    `settings` are OpenCV's flags and values. Raises DataError for a format that this OpenCV cannot write.
    """
    try:
        _, data = cv2.imencode(suffix.lower(), picture, list(settings))
    except cv2.error as error:
        raise DataError(f"cannot encode a picture as {suffix}: this OpenCV has no such format") from error
    return data.tobytes()
