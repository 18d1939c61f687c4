"""The MakeHuman files that the generator needs: found, and read into arrays.

Lengths are decimetres, x to the person's left, y up, z forward, as in MakeHuman.
"""

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError

__all__ = ["AssetFolder", "FittedMesh", "Mesh", "opened_assets", "read_fitted", "read_mesh", "read_target"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

HELP = (
    "it must hold base.obj, rigs/default.mhskel, rigs/default_weights.mhw, targets/macrodetails/*.target, "
    "clothes/*/*.mhclo, hair/*/*.mhclo, eyebrows/*/*.mhclo and poses/*.bvh, each with its .obj: the folder "
    "makehuman/data of github.com/makehumancommunity/makehuman together with the package makehuman_system_assets "
    "of static.makehumancommunity.org, all CC0 1.0 (see docs/synthetic.md)"
)

VERTEX_COUNT = 19158
"""Vertices of the hm08 base mesh, with its helpers; rig, targets and clothes refer to them by number."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A triangulated mesh: `vertices` (V, 3), `coordinates` (T, 2) of textures, and both corners of `faces` (F, 3)."""

    vertices: Floats
    coordinates: Floats
    faces: Indices
    face_coordinates: Indices


@dataclass(frozen=True, slots=True)
class FittedMesh:
    """A mesh that is worn: each of its vertices is bound to three of the body.

    `bound` (V, 3) vertex numbers of the body, `shares` (V, 3), `offsets` (V, 3); `scale` maps an axis to two body
    vertices and their distance in the body for which the offsets were made; `covered` are body vertices to hide.
    """

    mesh: Mesh
    bound: Indices
    shares: Floats
    offsets: Floats
    scale: dict[int, tuple[int, int, float]]
    covered: Indices


class AssetFolder:
    """A folder of assets. Raises DataError, saying where to get them, when it is absent or incomplete."""

    def __init__(self, root: Path) -> None:
        nested = root / "makehuman"
        self.root = nested if nested.is_dir() else root
        if not self.root.is_dir():
            raise DataError(f"there is no folder of MakeHuman assets at {root}; {HELP}")
        nested_base = self.root / "3dobjs" / "base.obj"
        self.base = nested_base if nested_base.exists() else self.root / "base.obj"
        needed = (self.base, self.rig("default.mhskel"), self.rig("default_weights.mhw"))
        for path in needed:
            if not path.is_file():
                raise DataError(f"the MakeHuman assets at {root} lack {path.relative_to(self.root)}; {HELP}")
        for pattern in ("targets/macrodetails/*.target", "clothes/*/*.mhclo", "hair/*/*.mhclo", "poses/*.bvh"):
            if not any(self.root.glob(pattern)):
                raise DataError(f"the MakeHuman assets at {root} lack {pattern}; {HELP}")

    def rig(self, name: str) -> Path:
        """A file of the rig."""
        return self.root / "rigs" / name

    def target(self, name: str) -> Path:
        """A macro shape target, such as `caucasian-female-young`."""
        return self.root / "targets" / "macrodetails" / f"{name}.target"

    def worn(self, kind: str) -> dict[str, Path]:
        """The .mhclo files of a kind (clothes, hair, eyebrows) by their name, sorted."""
        return {path.stem: path for path in sorted((self.root / kind).glob("*/*.mhclo"))}

    def motions(self) -> list[Path]:
        """The .bvh files, sorted."""
        return sorted((self.root / "poses").glob("*.bvh"))


@contextlib.contextmanager
def opened_assets(path: Path) -> Iterator[Path]:
    """The folder of the assets: `path` itself, or what a tar archive holds, unpacked for as long as it is needed."""
    if not path.is_file():
        AssetFolder(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="posesdk-assets-") as folder:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, members=_plain_members(archive))
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"cannot unpack the assets {path}: {error}; expected a tar archive; {HELP}") from error
        AssetFolder(Path(folder))
        yield Path(folder)


def _plain_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files and folders of an archive that stay inside the folder it is unpacked to."""
    for member in archive:
        parts = Path(member.name).parts
        if (member.isfile() or member.isdir()) and not os.path.isabs(member.name) and ".." not in parts:
            yield member


def read_mesh(path: Path, groups: tuple[str, ...] | None = None) -> Mesh:
    """A Wavefront .obj; with `groups`, only the faces of these. Polygons become fans of triangles."""
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = []
    faces: list[list[int]] = []
    corners: list[list[int]] = []
    group = ""
    for line in _lines(path):
        kind, *words = line.split()
        if kind == "v":
            vertices.append([float(word) for word in words[:3]])
        elif kind == "vt":
            coordinates.append([float(word) for word in words[:2]])
        elif kind == "g":
            group = words[0] if words else ""
        elif kind == "f" and (groups is None or group in groups):
            pairs = [word.split("/") for word in words]
            numbers = [int(pair[0]) - 1 for pair in pairs]
            texture = [int(pair[1]) - 1 if len(pair) > 1 and pair[1] else 0 for pair in pairs]
            for k in range(1, len(numbers) - 1):
                faces.append([numbers[0], numbers[k], numbers[k + 1]])
                corners.append([texture[0], texture[k], texture[k + 1]])
    return Mesh(
        np.array(vertices, dtype=np.float32),
        np.array(coordinates or [[0.0, 0.0]], dtype=np.float32),
        np.array(faces, dtype=np.int64),
        np.array(corners, dtype=np.int64),
    )


def read_target(path: Path) -> tuple[Indices, Floats]:
    """A shape target: vertex numbers (M,) and their displacements (M, 3)."""
    rows = [line.split()[:4] for line in _lines(path) if not line.startswith("#")]
    values = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return values[:, 0].astype(np.int64), values[:, 1:].astype(np.float32)


def read_fitted(path: Path) -> FittedMesh:
    """A .mhclo file with its mesh."""
    scale: dict[int, tuple[int, int, float]] = {}
    rows: list[list[float]] = []
    covered: list[str] = []
    section = ""
    mesh_name = f"{path.stem}.obj"
    for line in _lines(path):
        words = line.split()
        if words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif words[0] in ("x_scale", "y_scale", "z_scale"):
            scale["xyz".index(words[0][0])] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0] == "obj_file":
            mesh_name = words[1]
        elif words[0][0].isdigit() and section == "verts":
            rows.append(_binding(words))
        elif words[0][0].isdigit() and section == "delete_verts":
            covered += line.replace("-", " - ").split()
    table = np.array(rows, dtype=np.float64)
    mesh = read_mesh(path.parent / mesh_name)
    if len(table) != len(mesh.vertices):
        raise DataError(f"{path} binds {len(table)} vertices, its mesh {mesh_name} has {len(mesh.vertices)}")
    bound, shares, offsets = table[:, :3].astype(np.int64), table[:, 3:6], table[:, 6:9]
    return FittedMesh(mesh, bound, shares.astype(np.float32), offsets.astype(np.float32), scale, _ranges(covered))


def _binding(words: list[str]) -> list[float]:
    """Nine numbers: three vertices, their shares, an offset; a vertex alone is followed exactly."""
    if len(words) == 1:
        return [float(words[0])] * 3 + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    return [float(word) for word in words[:9]] + [0.0] * (9 - len(words))


def _ranges(words: list[str]) -> Indices:
    """`3 5 - 7` -> 3, 5, 6, 7."""
    numbers: set[int] = set()
    position = 0
    while position < len(words):
        first = last = int(words[position])
        if position + 2 < len(words) and words[position + 1] == "-":
            last = int(words[position + 2])
            position += 2
        numbers.update(range(first, last + 1))
        position += 1
    return np.array(sorted(number for number in numbers if number < VERTEX_COUNT), dtype=np.int64)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file that hold something."""
    try:
        with path.open(errors="ignore") as file:
            yield from (line for line in file if not line.isspace())
    except OSError as error:
        raise DataError(f"cannot read the asset {path}: {error.strerror or error}; {HELP}") from error
