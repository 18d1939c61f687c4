"""The skeleton of bones: its weights, and where bones go when they are turned (forward kinematics)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError
from posesdk_training.files import read_json
from posesdk_training.synthetic.assets import VERTEX_COUNT, AssetFolder

__all__ = ["JOINT_BONES", "Rig", "load_rig", "posed_bones", "skinning_matrices"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

JOINT_BONES = tuple(
    f"{bone}.{side}"
    for bone in ("upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")
    for side in "LR"
)
"""The bones whose heads are the COCO keypoints 5 to 16, shoulders to ankles."""


@dataclass(frozen=True, slots=True)
class Rig:
    """Bones, parents before children.

    `parents` (B,) with -1 for the root, `levels` the bone numbers of each depth, `heads` the body vertices whose mean
    is a bone's head, `weights` (V, B) of the base mesh, `mirror` (B,) the bone of the other side.
    """

    names: tuple[str, ...]
    parents: Indices
    levels: tuple[Indices, ...]
    heads: tuple[Indices, ...]
    weights: NDArray[np.float32]
    mirror: Indices

    def number(self, name: str) -> int:
        """The number of a bone."""
        return self.names.index(name)

    def starting_with(self, *prefixes: str, side: str = "") -> Indices:
        """The bones whose names start with any of these, of one side ("L", "R") or of all."""
        return np.array(
            [i for i, name in enumerate(self.names) if name.startswith(prefixes) and name.endswith(side)],
            dtype=np.int64,
        )

    def head_positions(self, vertices: NDArray[np.float32]) -> Floats:
        """(B, 3) heads of the bones in a body with these base mesh vertices (V, 3)."""
        return np.array([vertices[indices].mean(0) for indices in self.heads], dtype=np.float64)


def load_rig(assets: AssetFolder, vertices: NDArray[np.float32]) -> Rig:
    """The default rig; `vertices` (V, 3) are the base mesh's. Raises DataError for files of another format."""
    path = assets.rig("default.mhskel")
    tree = _json(path)
    weights_tree = _json(assets.rig("default_weights.mhw"))
    try:
        bones, joints = tree["bones"], tree["joints"]
        names = _ordered({name: bone["parent"] for name, bone in bones.items()})
        heads = tuple(np.array(joints[bones[name]["head"]], dtype=np.int64) for name in names)
        weights = _weights(weights_tree["weights"], names, vertices)
        parents = np.array(
            [-1 if bones[name]["parent"] is None else names.index(bones[name]["parent"]) for name in names]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot understand the rig {path}: {error!r}; expected MakeHuman's default rig") from error
    depth = np.zeros(len(names), dtype=np.int64)
    for index, parent in enumerate(parents):
        depth[index] = 0 if parent < 0 else depth[parent] + 1
    levels = tuple(np.flatnonzero(depth == level) for level in range(int(depth.max()) + 1))
    mirror = np.array([names.index(_other_side(name)) for name in names])
    return Rig(tuple(names), parents, levels, heads, weights, mirror)


def _json(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    tree = read_json(path, "the asset")
    if not isinstance(tree, dict):
        raise DataError(f"the asset {path} is no JSON object")
    return tree


def _ordered(parents: dict[str, str | None]) -> list[str]:
    """The names, parents before children."""
    names: list[str] = []
    while len(names) < len(parents):
        ready = [name for name, parent in parents.items() if name not in names and (parent is None or parent in names)]
        if not ready:
            raise ValueError("bones without a way to the root")
        names += ready
    return names


def _other_side(name: str) -> str:
    if name.endswith((".L", ".R")):
        return name[:-1] + ("R" if name.endswith("L") else "L")
    return name


def _weights(tree: dict[str, dict[str, str]], names: list[str], vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """(V, B) rows that sum to 1; helper vertices without weights get those of the nearest vertex that has some."""
    weights = np.zeros((VERTEX_COUNT, len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        pairs = np.array(tree.get(name, ()), dtype=np.float64).reshape(-1, 2)
        weights[pairs[:, 0].astype(np.int64), index] = pairs[:, 1]
    total = weights.sum(1)
    bare, known = np.flatnonzero(total < 0.5), np.flatnonzero(total >= 0.5)
    for chunk in np.array_split(bare, max(1, len(bare) // 200)):
        gaps = ((vertices[chunk, None] - vertices[None, known]) ** 2).sum(-1)
        weights[chunk] = weights[known[gaps.argmin(1)]]
    return np.asarray(weights / weights.sum(1, keepdims=True))


def posed_bones(rig: Rig, heads: Floats, turns: Floats) -> tuple[Floats, Floats]:
    """Rotations (..., B, 3, 3) and head positions (..., B, 3) of the bones turned by `turns` (..., B, 3, 3).

    A turn is about the bone's own head, along the axes of the rest pose, and carries its children. The root's head
    stays where it is.
    """
    turned = np.empty_like(turns)
    moved = np.empty(turns.shape[:-1])
    for level in rig.levels:
        parent = rig.parents[level]
        if parent[0] < 0:
            turned[..., level, :, :] = turns[..., level, :, :]
            moved[..., level, :] = heads[level]
            continue
        above = turned[..., parent, :, :]
        turned[..., level, :, :] = above @ turns[..., level, :, :]
        moved[..., level, :] = moved[..., parent, :] + (above @ (heads[level] - heads[parent])[:, :, None])[..., 0]
    return turned, moved


def skinning_matrices(heads: Floats, turned: Floats, moved: Floats) -> Floats:
    """(B, 4, 4) that take a rest pose point of a bone to its posed place."""
    matrices = np.zeros((len(heads), 4, 4))
    matrices[:, :3, :3] = turned
    matrices[:, :3, 3] = moved - (turned @ heads[:, :, None])[..., 0]
    matrices[:, 3, 3] = 1
    return matrices
