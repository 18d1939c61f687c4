"""Opening, checking, reading and writing a bundle: a folder, or the same tree as a stored zip (`.posebundle`)."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle_cache import cache_folder, copy_with_digest, matches, store
from posesdk.bundle_tree import Entry, FolderTree, Tree, ZipTree, entry_error, open_tree
from posesdk.manifest import (
    MANIFEST_NAME,
    Accuracy,
    BundleFile,
    Licence,
    Manifest,
    Variant,
    dump_manifest,
    parse_manifest,
)
from posesdk.spec import ModelSpec
from posesdk.variants import Candidate, select_variant
from posesdk_runtimes.errors import BundleError

__all__ = [
    "GOLDEN_EXPECTED",
    "GOLDEN_IMAGE",
    "Accuracy",
    "Bundle",
    "BundleFile",
    "Candidate",
    "Golden",
    "Licence",
    "Manifest",
    "Variant",
    "build_manifest_files",
    "default_bundle_path",
    "golden_expected",
    "models_folder",
    "open_bundle",
    "select_variant",
    "write_bundle",
    "write_manifest",
]

GOLDEN_IMAGE = "golden/image.png"
GOLDEN_EXPECTED = "golden/expected.json"
"""`Poses.to_dict()` of the golden image, at the model's own input size."""

_MANIFEST_LIMIT = 4 << 20
"""Bytes of the largest manifest that is read; a real one has some thousand."""
_COMPANIONS = {".xml": ".bin", ".onnx": ".onnx.data"}
"""Files that a backend looks for beside a graph: OpenVINO weights, ONNX external data."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time stamp of a zip: the same files give the same archive."""


@dataclass(frozen=True, eq=False, slots=True)
class Golden:
    """A PNG image and what is found in it: keypoints (N, K, 2) in its pixels, keypoint_scores (N, K), scores (N,)."""

    image: bytes
    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]

    def picture(self) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 BGR. Raises BundleError for one that cannot be decoded."""
        import cv2  # what opens a bundle alone does without it

        image = cv2.imdecode(np.frombuffer(self.image, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise BundleError(f"{GOLDEN_IMAGE} of the bundle is no picture; convert the checkpoint again")
        return np.asarray(image, np.uint8)


class Bundle:
    """A bundle whose every file had the size and sha256 of its manifest when it was opened. It holds no open file."""

    def __init__(self, path: Path, manifest: Manifest, tree: FolderTree | ZipTree) -> None:
        self._path, self._manifest, self._tree = path, manifest, tree
        self._files = {file.path: file for file in manifest.files}

    @property
    def path(self) -> Path:
        """The folder or archive."""
        return self._path

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._manifest

    @property
    def spec(self) -> ModelSpec:
        """The model's contract."""
        return self._manifest.model

    def read(self, name: str) -> bytes:
        """Content of one file, checked again. Raises BundleError if there is none of that name, or it has changed."""
        file = self._file(name)
        with _reading(self._path), self._tree.open(name) as source:
            data = source.read(file.size + 1)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise entry_error(self._path, name, "has changed since the bundle was opened")
        return data

    def local_path(self, name: str) -> Path:
        """A path to the file's content: the file itself, or a copy in the user's cache for a zipped bundle.

        The files that a graph needs beside it (`.bin` of an OpenVINO `.xml`) lie beside it there as well.
        """
        file = self._file(name)
        if isinstance(self._tree, FolderTree):
            return self._tree.path(name)
        stem, suffix = os.path.splitext(name)
        beside = self._files.get(stem + _COMPANIONS.get(suffix, suffix), file)
        group = dict.fromkeys((file, beside))
        key = hashlib.sha256("".join(member.sha256 for member in group).encode()).hexdigest()
        folder = cache_folder() / "bundles" / (file.sha256 if len(group) == 1 else key)
        for member in group:
            self._extract(member, folder / member.path.rsplit("/", 1)[-1])
        return folder / name.rsplit("/", 1)[-1]

    def golden(self, input_size: tuple[int, int] | None = None) -> Golden | None:
        """The self test of the bundle, None if it has none.

        The poses are those that the model finds at an `input_size` (height, width) that a variant's graph is fixed to,
        where the bundle has them; else those at the model's own.
        """
        if not {GOLDEN_IMAGE, GOLDEN_EXPECTED} <= self._files.keys():
            return None
        name = golden_expected(input_size)
        name = name if name in self._files else GOLDEN_EXPECTED
        image, expected = self.read(GOLDEN_IMAGE), self.read(name)
        try:
            persons: list[dict[str, Any]] = json.loads(expected)["persons"]
            points = np.array([person["keypoints"] for person in persons], dtype=np.float32)
            points = points.reshape(len(persons), self.spec.keypoint_count, 3)
            scores = np.array([person["score"] for person in persons], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise entry_error(self._path, name, f"holds no poses of this model ({error!r})") from error
        return Golden(image, points[..., :2].copy(), points[..., 2].copy(), scores)

    def _file(self, name: str) -> BundleFile:
        if name not in self._files:
            raise BundleError(f"bundle {self._path} has no file {name!r}; it has {', '.join(sorted(self._files))}")
        return self._files[name]

    def _extract(self, file: BundleFile, target: Path) -> None:
        if matches(target, file.size, file.sha256):
            return
        with _reading(self._path), self._tree.open(file.path) as source:
            if not store(source, target, file.sha256):
                raise entry_error(self._path, file.path, "has changed since the bundle was opened")


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle at `path`, every file checked. Raises BundleError that names the bundle, the entry and what to do."""
    place = Path(path)
    tree = open_tree(place)
    with _reading(place):
        entries = tree.entries()
        manifest = _read_manifest(place, tree, entries.pop(MANIFEST_NAME, None))
        listed = {file.path: file for file in manifest.files}
        for name in sorted(entries.keys() - listed.keys()):
            raise entry_error(place, name, "is not listed in the manifest", "remove it, or get the bundle again")
        for name, file in listed.items():
            _check_file(place, file, entries.get(name))
    return Bundle(place, manifest, tree)


def models_folder() -> Path:
    """Where the models that come with the package lie."""
    return Path(__file__).parent / "models"  # importlib.resources finds the same, and takes 10 ms to import


def default_bundle_path() -> Path:
    """The bundle that comes with the package. Raises BundleError where the package was built without it."""
    path = models_folder() / "default.posebundle"
    if not path.is_file():
        raise BundleError(
            f"this installation of posesdk holds no default model ({path}); name a bundle, or install the posesdk wheel"
        )
    return path


def golden_expected(input_size: tuple[int, int] | None) -> str:
    """Path of the expected poses for graphs of that input size (height, width), None for the model's own."""
    return GOLDEN_EXPECTED if input_size is None else f"golden/expected-{input_size[0]}x{input_size[1]}.json"


def build_manifest_files(folder: str | os.PathLike[str]) -> tuple[BundleFile, ...]:
    """The `files` of a manifest for all that lies in `folder`, sorted by path."""
    root = Path(folder)
    tree = FolderTree(root)
    files = []
    for name, entry in sorted(tree.entries().items()):
        if name == MANIFEST_NAME:
            continue
        with entry.open() as source:
            digest, size = copy_with_digest(source)
        files.append(BundleFile(path=name, size=size, sha256=digest))
    return tuple(files)


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Writes manifest.json into `folder`."""
    path = Path(folder) / MANIFEST_NAME
    path.write_bytes(dump_manifest(manifest))
    return path


def write_bundle(folder: str | os.PathLike[str], output_path: str | os.PathLike[str]) -> Path:
    """Packs a checked bundle folder into a stored zip, in one step; the same files give the same bytes."""
    bundle = open_bundle(folder)
    names = [MANIFEST_NAME, *sorted(file.path for file in bundle.manifest.files)]
    output = Path(output_path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        part = Path(scratch) / output.name
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system, entry.external_attr = 3, 0o100644 << 16  # Unix, regular file rw-r--r--
                source_path = bundle.path / name
                entry.file_size = source_path.stat().st_size
                with source_path.open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        open_bundle(part)
        os.replace(part, output)
    return output


def _read_manifest(bundle: Path, tree: Tree, entry: Entry | None) -> Manifest:
    if entry is None:
        raise entry_error(bundle, MANIFEST_NAME, "is missing", "check that this is a bundle")
    if entry.size > _MANIFEST_LIMIT:
        raise entry_error(bundle, MANIFEST_NAME, f"has {entry.size} bytes, more than the allowed {_MANIFEST_LIMIT}")
    return parse_manifest(tree.read_checked(MANIFEST_NAME, _MANIFEST_LIMIT), str(bundle))


def _check_file(bundle: Path, file: BundleFile, entry: Entry | None) -> None:
    if entry is None:
        raise entry_error(bundle, file.path, "is listed in the manifest but missing")
    if entry.size != file.size:
        raise entry_error(bundle, file.path, f"has {entry.size} bytes, its manifest says {file.size}")
    with entry.open() as source:
        digest, _ = copy_with_digest(source)
    if digest != file.sha256:
        raise entry_error(bundle, file.path, f"has sha256 {digest}, its manifest says {file.sha256}")


@contextmanager
def _reading(bundle: Path) -> Iterator[None]:
    # zipfile reports broken archives by all of these; NotImplementedError is an unknown zip version.
    try:
        yield
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"cannot read bundle {bundle}: {error}; it must be a bundle folder or a stored zip, get or convert it again"
        ) from error
