"""The output folder: pictures, a journal of what was finished, and the COCO file made of it.

A picture is finished when its line stands in the journal, so an interrupted run loses at most what was being drawn.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.files import write_picture, write_text
from posesdk_training.synthetic.generator import Picture, Settings

__all__ = ["Entry", "OutputFolder", "save_picture"]

Entry = dict[str, Any]
"""One picture in the journal: index, file_name, width, height and annotations."""

QUALITY = {
    ".png": (cv2.IMWRITE_PNG_COMPRESSION, 3),
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 90),
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, 75),
}
IDS_PER_PICTURE = 100
LICENSE = "CC0 1.0 assets of the MakeHuman community; backgrounds under the licences of their photos"


class OutputFolder:
    """Where a run is written. Raises DataError if it holds a run with other settings, or cannot be written.

    The settings are recorded with the first picture: a run that could not make any leaves the folder to others.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self._settings = settings
        self._journal = folder / "journal.jsonl"
        wanted = _recorded(settings)
        self._record = record = folder / "settings.json"
        try:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            if record.exists():
                found = json.loads(record.read_bytes())
                if found != wanted:
                    raise DataError(
                        f"{folder} holds pictures of a run with other settings ({_difference(found, wanted)}); "
                        "give the same ones to go on with it, or another --output"
                    )
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(f"cannot read {record}: {error}; remove it to start anew") from error
        self.entries = self._read_journal()

    def missing(self, count: int) -> list[int]:
        """The pictures below `count` that are not finished."""
        return [index for index in range(count) if index not in self.entries]

    def add(self, entry: Entry) -> None:
        """Marks a picture as finished."""
        if not self._record.exists():
            write_text(self._record, json.dumps(_recorded(self._settings), indent=1))
        with self._journal.open("a") as file:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self.entries[entry["index"]] = entry

    def write_annotations(self) -> Path:
        """Writes keypoints.json with all finished pictures."""
        images, annotations = [], []
        for index in sorted(self.entries):
            entry = self.entries[index]
            size = {"width": entry["width"], "height": entry["height"]}
            images.append({"id": index + 1, "file_name": entry["file_name"], **size})
            for number, annotation in enumerate(entry["annotations"]):
                key = (index + 1) * IDS_PER_PICTURE + number
                annotations.append({"id": key, "image_id": index + 1, "category_id": 1, **annotation})
        category = {
            "id": 1,
            "name": "person",
            "supercategory": "person",
            "keypoints": list(COCO_17.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in COCO_17.edges],
        }
        info = {"description": "rendered people", "license": LICENSE, **_recorded(self._settings)}
        tree = {"info": info, "images": images, "annotations": annotations, "categories": [category]}
        path = self.folder / "keypoints.json"
        write_text(path, json.dumps(tree, separators=(",", ":")))
        return path

    def _read_journal(self) -> dict[int, Entry]:
        """The finished pictures; a last line that was cut off is taken out."""
        if not self._journal.exists():
            return {}
        lines = self._journal.read_text().split("\n")
        if lines[-1]:
            lines[-1] = ""
            write_text(self._journal, "\n".join(lines))
        entries = (json.loads(line) for line in lines if line)
        return {entry["index"]: entry for entry in entries}


def save_picture(folder: Path, index: int, picture: Picture, suffix: str) -> Entry:
    """Writes the image of a picture below `folder`/images, whole or not at all; returns its line of the journal."""
    name = f"{index:08d}{suffix}"
    write_picture(folder / "images" / name, picture.image, QUALITY[suffix])
    height, width = picture.image.shape[:2]
    annotations = [
        {
            "keypoints": _rounded(annotation.keypoints),
            "num_keypoints": int((annotation.keypoints[:, 2] > 0).sum()),
            "bbox": list(annotation.box),
            "area": annotation.area,
            "iscrowd": int(annotation.is_crowd),
            "segmentation": _run_lengths(annotation.mask),
        }
        for annotation in picture.annotations
    ]
    return {"index": index, "file_name": name, "width": width, "height": height, "annotations": annotations}


def _rounded(keypoints: NDArray[np.float64]) -> list[float]:
    """51 numbers: x and y to a hundredth of a px, v whole."""
    return [int(value) if k % 3 == 2 else round(float(value), 2) for k, value in enumerate(keypoints.ravel())]


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _recorded(settings: Settings) -> dict[str, Any]:
    """What decides about the pictures, as JSON has it; the place of the assets does not."""
    record = asdict(settings)
    del record["assets"]
    record["layouts"] = None if settings.layouts is None else str(settings.layouts)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    return ", ".join(f"{key} {found.get(key)!r} there, {wanted[key]!r} now" for key in keys)
