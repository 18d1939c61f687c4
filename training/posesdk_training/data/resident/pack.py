"""Packs: the photos and records of a run in a few files, to be carried to a rented machine.

A pack is a stored zip with `records.json`, WebP photos, and PNG masks of the regions that training must not look at.
"""

import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.images import decode_image
from posesdk.skeleton import Skeleton
from posesdk_runtimes.errors import DataError, SourceError
from posesdk_training.data.records import KeypointSet, PersonRecord
from posesdk_training.data.resident.photos import DecodedPhoto, PhotoSource, folder_sources
from posesdk_training.files import encode_picture, replaced

__all__ = ["PackedSets", "read_packs", "write_packs"]

logger = logging.getLogger(__name__)

MIB = 2**20
VERSION = 1
RECORDS = "records.json"
QUALITY = 80
ENTRY_BYTES = 300
"""What a zip needs beside the content of a photo and its mask, at most."""
ROOM = 4096
"""Bytes for the head of the records and the end of the zip."""
BEFOREHAND = 64
"""Photos that are encoded before the first of them is written."""


@dataclass(frozen=True, slots=True)
class PackedSets:
    """Photos of packs, and by the name of each set which keypoints it labels (K,), and whether it labels anything."""

    sources: list[PhotoSource]
    annotated: dict[str, list[bool]]
    labelled: dict[str, bool]


@dataclass(frozen=True, slots=True)
class _Entry:
    record: dict[str, Any]
    photo: bytes
    mask: bytes | None

    @property
    def size(self) -> int:
        return len(self.photo) + len(self.mask or b"") + len(json.dumps(self.record)) + ENTRY_BYTES


def write_packs(
    sets: Sequence[KeypointSet],
    output: Path,
    *,
    max_mib: float = 60.0,
    long_side: int = 320,
    on_photo: Callable[[], object] = lambda: None,
) -> list[Path]:
    """Writes all photos of `sets`, at most `long_side` px long, into files of at most `max_mib` MiB; gives their paths.

    They are called as `output` with -1, -2, ... before the suffix. Photos are shuffled, so that each pack alone is a
    fair part of the whole. Those that cannot be read are left out with a warning. Raises DataError.
    """
    head = {
        "posesdk_pack": VERSION,
        "keypoints": list(sets[0].skeleton.keypoints),
        "sets": {
            entry.config.name: {"annotated": entry.annotated.tolist(), "labelled": entry.config.is_labelled}
            for entry in sets
        },
    }
    limit = int(max_mib * MIB) - ROOM
    paths: list[Path] = []
    part: list[_Entry] = []
    size = 0
    for entry in _encoded(sets, long_side):
        on_photo()
        if entry is None:
            continue
        if part and size + entry.size > limit:
            paths.append(_write_part(output, len(paths) + 1, head, part))
            part, size = [], 0
        part.append(entry)
        size += entry.size
    if part:
        paths.append(_write_part(output, len(paths) + 1, head, part))
    if not paths:
        raise DataError(
            f"cannot pack into {output}: none of the photos of {', '.join(entry.config.name for entry in sets)} "
            "can be read; check data.sets and data.root"
        )
    return paths


def _encoded(sets: Sequence[KeypointSet], long_side: int) -> Iterator[_Entry | None]:
    sources = [source for index, entry in enumerate(sets) for source in folder_sources(entry, index)]
    order = np.random.default_rng(0).permutation(len(sources))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(order), BEFOREHAND):
            group = [sources[number] for number in order[start : start + BEFOREHAND]]
            yield from pool.map(lambda source: _encode(source, sets, long_side), group)


def _encode(source: PhotoSource, sets: Sequence[KeypointSet], long_side: int) -> _Entry | None:
    try:
        photo = source.decode()
    except SourceError as error:
        logger.warning("left out: %s", error)
        return None
    height, width = photo.pixels.shape[:2]
    factor = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    scale = np.array([size[0] / width, size[1] / height])
    pixels = photo.pixels if factor == 1 else cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    mask = None
    if photo.mask is not None and photo.mask.any():
        mask = encode_picture(".png", np.asarray(cv2.resize(photo.mask, size, interpolation=cv2.INTER_AREA), np.uint8))
    record = {
        "set": sets[source.set_index].config.name,
        "name": source.name,
        "persons": [_person(person, scale) for person in source.persons],
        "mask": mask is not None,
    }
    return _Entry(
        record, encode_picture(".webp", np.asarray(pixels, np.uint8), (cv2.IMWRITE_WEBP_QUALITY, QUALITY)), mask
    )


def _person(person: PersonRecord, scale: NDArray[np.float64]) -> dict[str, Any]:
    """Pixel centers keep their places: (x + 1/2) * scale - 1/2."""
    points = person.keypoints.astype(np.float64)
    points[:, :2] = np.where(points[:, 2:] > 0, (points[:, :2] + 0.5) * scale - 0.5, points[:, :2])
    box = (person.box.astype(np.float64).reshape(2, 2) + 0.5) * scale - 0.5
    return {
        "keypoints": [round(value, 2) for value in points.ravel().tolist()],
        "box": [round(value, 2) for value in box.ravel().tolist()],
        "area": round(float(person.area * scale.prod()), 2),
        "crowd": person.is_crowd,
    }


def _write_part(output: Path, number: int, head: dict[str, Any], part: Iterable[_Entry]) -> Path:
    path = output.with_name(f"{output.stem}-{number}{output.suffix}")
    records = []
    with replaced(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for index, entry in enumerate(part):
            archive.writestr(f"{index}.webp", entry.photo)
            if entry.mask is not None:
                archive.writestr(f"{index}.png", entry.mask)
            records.append(entry.record)
        content = json.dumps(head | {"photos": records}, separators=(",", ":"))
        archive.writestr(RECORDS, content, zipfile.ZIP_DEFLATED)
    logger.info("%s: %d photos, %.1f MiB", path, len(records), path.stat().st_size / MIB)
    return path


def read_packs(paths: Sequence[Path], skeleton: Skeleton, names: Sequence[str]) -> PackedSets:
    """What packs hold of the sets called `names`, in memory still encoded. Raises DataError for a file that is none.

    A set that no pack knows labels nothing.
    """
    packed = PackedSets([], {name: [False] * len(skeleton) for name in names}, dict.fromkeys(names, False))
    for path in paths:
        try:
            archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
            tree = json.loads(archive.read(RECORDS))
            _take_in(packed, path, archive, tree, skeleton=skeleton, names=names)
        except OSError as error:
            raise DataError(f"cannot read the pack {path}: {error.strerror or error}; check data.pack") from error
        except (zipfile.BadZipFile, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"cannot read the pack {path}: {error!r}; copy it again, or write it anew with `posesdk-train pack`"
            ) from error
    return packed


def _take_in(
    packed: PackedSets,
    path: Path,
    archive: zipfile.ZipFile,
    tree: dict[str, Any],
    *,
    skeleton: Skeleton,
    names: Sequence[str],
) -> None:
    if tree["posesdk_pack"] != VERSION:
        raise DataError(f"the pack {path} has version {tree['posesdk_pack']}, this posesdk reads {VERSION}; pack again")
    if tuple(tree["keypoints"]) != skeleton.keypoints:
        raise DataError(
            f"the pack {path} was written for a model with {len(tree['keypoints'])} keypoints "
            f"{tree['keypoints'][:3]}..., this one has {skeleton.keypoints[:3]}...; pack again with its configuration"
        )
    for name in set(names) & tree["sets"].keys():
        packed.annotated[name] = tree["sets"][name]["annotated"]
        packed.labelled[name] = tree["sets"][name]["labelled"]
    for index, record in enumerate(tree["photos"]):
        if record["set"] in names:
            persons = tuple(_person_record(person) for person in record["persons"])
            decode = _decoder(archive, path, index, has_mask=record["mask"])
            packed.sources.append(PhotoSource(names.index(record["set"]), record["name"], persons, decode))


def _person_record(person: dict[str, Any]) -> PersonRecord:
    keypoints = np.array(person["keypoints"], dtype=np.float32).reshape(-1, 3)
    return PersonRecord(keypoints, np.array(person["box"], dtype=np.float32), person["area"], person["crowd"])


def _decoder(archive: zipfile.ZipFile, path: Path, index: int, *, has_mask: bool) -> Callable[[], DecodedPhoto]:
    def decode() -> DecodedPhoto:
        try:
            photo = archive.read(f"{index}.webp")
            mask = archive.read(f"{index}.png") if has_mask else None
        except (zipfile.BadZipFile, KeyError) as error:
            raise SourceError(
                f"cannot read photo {index} of the pack {path}: {error!r}; copy the pack again"
            ) from error
        pixels = decode_image(photo, path / f"{index}.webp", oriented=False)
        return DecodedPhoto(pixels, None if mask is None else decode_image(mask, path / f"{index}.png")[..., 0])

    return decode
