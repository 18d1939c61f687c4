"""Photos without annotations, for a teacher to label."""

from pathlib import Path

from posesdk.sources import IMAGE_SUFFIXES
from posesdk_runtimes.errors import DataError

__all__ = ["EVERYWHERE", "list_photos"]

EVERYWHERE = [[-1e5, -1e5, 1e5, -1e5, 1e5, 1e5, -1e5, 1e5]]
"""A polygon, orig px, that holds every photo and what a crop shows beside it: the region without labels."""


def list_photos(name: str, folder: Path) -> list[Path]:
    """The pictures of the data set called `name` in a folder and its subfolders, by path; DataError where none is."""
    if not folder.is_dir():
        raise DataError(
            f"data set {name!r}: there is no folder {folder}; check its path in the configuration, and data.root"
        )
    photos = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not photos:
        raise DataError(f"data set {name!r}: no pictures in {folder}; give a folder of pictures")
    return photos
