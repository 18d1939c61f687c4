"""A person ready to be drawn: body, clothes and hair in one vertex buffer."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import Mesh
from posesdk_training.synthetic.body import Base, BodyShape, random_shape, shaped_vertices
from posesdk_training.synthetic.clothing import Outfit, Wardrobe, fitted_vertices, fitted_weights, random_outfit
from posesdk_training.synthetic.rig import Rig

__all__ = ["VERTEX", "Character", "Slot", "build_character", "face_points"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

VERTEX = np.dtype(
    [("position", "3f4"), ("normal", "3f4"), ("texture", "2f4"), ("slot", "f4"), ("bones", "4u1"), ("shares", "4f4")]
)

GRIDS = (0.22, 0.45)
"""Cells, in dm, to which vertices are joined in the two coarser meshes, for small people and for shadows."""


BELT = 0.55
"""dm above the hips at which a suit changes its color."""


class Slot(IntEnum):
    """Parts of a person that have a material of their own."""

    HEAD = 0
    TORSO = 1
    UPPER_ARM = 2
    LOWER_ARM = 3
    HAND = 4
    UPPER_LEG = 5
    LOWER_LEG = 6
    FOOT = 7
    SUIT_TOP = 8
    SUIT_BOTTOM = 9
    SHOE = 10
    HAIR = 11
    EYE = 12
    IRIS = 13
    BROW = 14
    LIPS = 15
    SKIRT = 16
    HAT = 17


PREFIXES = {
    Slot.TORSO: ("spine", "breast", "root", "pelvis", "clavicle", "shoulder"),
    Slot.UPPER_ARM: ("upperarm",),
    Slot.LOWER_ARM: ("lowerarm",),
    Slot.HAND: ("wrist", "finger", "metacarpal"),
    Slot.UPPER_LEG: ("upperleg",),
    Slot.LOWER_LEG: ("lowerleg",),
    Slot.FOOT: ("foot", "toe"),
}


@dataclass(frozen=True, slots=True)
class Character:
    """`vertices` (V,) of VERTEX; `triangles`: (F, 3) from fine to coarse; `heads` (B, 3) of the bones; `face` (5, 3).

    The face points are nose, eyes and ears (left, right) of the rest pose; they follow the head's bone. `height` in dm.
    """

    shape: BodyShape
    vertices: NDArray[np.void]
    triangles: tuple[NDArray[np.int32], ...]
    heads: NDArray[np.float64]
    face: NDArray[np.float64]
    height: float


@dataclass(frozen=True, slots=True)
class _Part:
    vertices: Floats
    mesh: Mesh
    faces: NDArray[np.bool_]
    weights: Floats
    slots: Floats


def build_character(rng: np.random.Generator, base: Base, wardrobe: Wardrobe) -> Character:
    """A random person."""
    shape = random_shape(rng)
    outfit = random_outfit(rng, wardrobe, shape.sex)
    body = shaped_vertices(base, shape)
    regions = _bone_slots(base.rig)
    worn, covered = _worn_parts(base, wardrobe, outfit, body, regions)
    painted = _painted_slots(base, wardrobe, body, regions)
    shown = np.asarray(~covered[base.mesh.faces].any(1), dtype=np.bool_)
    vertices, triangles = _joined([_Part(body, base.mesh, shown, base.rig.weights, painted), *worn])
    return Character(
        shape=shape,
        vertices=vertices,
        triangles=(triangles, *(_coarse(vertices, triangles, cell) for cell in GRIDS)),
        heads=base.rig.head_positions(body),
        face=face_points(base, body),
        height=float(np.ptp(body[np.unique(base.mesh.faces), 1])),
    )


def _worn_parts(
    base: Base, wardrobe: Wardrobe, outfit: Outfit, body: Floats, regions: Indices
) -> tuple[list[_Part], NDArray[np.bool_]]:
    """What is worn, fitted to a body of vertices (V, 3), and which of these (V,) it covers."""
    rig = base.rig
    hip = float(rig.head_positions(body)[rig.number("upperleg01.L"), 1])
    covered = np.zeros(len(body), dtype=np.bool_)
    parts: list[_Part] = []
    pieces = (("clothes", outfit.suit), ("clothes", outfit.shoes), ("hair", outfit.hair), ("clothes", outfit.hat))
    for slot, (kind, name) in zip((Slot.SUIT_TOP, Slot.SHOE, Slot.HAIR, Slot.HAT), pieces, strict=True):
        if name is None:
            continue
        fitted = wardrobe(kind, name)
        vertices, weights = fitted_vertices(fitted, body), fitted_weights(fitted, rig.weights)
        slots = np.full(len(vertices), slot, dtype=np.float32)
        if slot is Slot.SUIT_TOP:
            arms = np.isin(regions[weights.argmax(1)], (Slot.UPPER_ARM, Slot.LOWER_ARM, Slot.HAND))
            slots[(vertices[:, 1] < hip + BELT) & ~arms] = Slot.SUIT_BOTTOM
        if slot in (Slot.HAIR, Slot.HAT):
            weights = np.zeros_like(weights)
            weights[:, rig.number("head")] = 1
        parts.append(_Part(vertices, fitted.mesh, _all_faces(fitted.mesh), weights, slots))
        covered[fitted.covered] = True
    if outfit.skirt:
        slots = np.full(len(body), Slot.SKIRT, dtype=np.float32)
        parts.append(_Part(body, base.skirt, _all_faces(base.skirt), rig.weights, slots))
    return parts, covered


def _all_faces(mesh: Mesh) -> NDArray[np.bool_]:
    return np.ones(len(mesh.faces), dtype=np.bool_)


def _bone_slots(rig: Rig) -> Indices:
    """(B,) the part of the body that a bone moves."""
    result = np.full(len(rig.names), Slot.HEAD, dtype=np.int64)
    for slot, prefixes in PREFIXES.items():
        result[rig.starting_with(*prefixes)] = slot
    return result


def _painted_slots(base: Base, wardrobe: Wardrobe, body: Floats, regions: Indices) -> Floats:
    """(V,) slots of the body: regions, and a face of eyes, brows and lips."""
    rig = base.rig
    dominant = regions[rig.weights.argmax(1)]
    slots = dominant.astype(np.float32)
    lips = rig.weights[:, rig.starting_with("oris")].sum(1)
    slots[(lips > 0.75) & (dominant == Slot.HEAD)] = Slot.LIPS
    brows = wardrobe.names("eyebrows", "")
    if brows:
        hair = fitted_vertices(wardrobe("eyebrows", brows[0]), body)
        near = np.flatnonzero((dominant == Slot.HEAD) & (np.abs(body[:, 1] - hair[:, 1].mean()) < 0.4))
        gaps = ((body[near, None] - hair[None]) ** 2).sum(-1).min(1)
        slots[near[gaps < 0.055**2]] = Slot.BROW
    for eye in base.eyes:
        forward = body[eye, 2]
        slots[eye] = Slot.EYE
        slots[eye[forward > forward.max() - 0.035]] = Slot.IRIS
    return np.asarray(slots, dtype=np.float32)


def face_points(base: Base, body: Floats) -> NDArray[np.float64]:
    """(5, 3) nose, left eye, right eye, left ear, right ear of a body with base mesh vertices (V, 3)."""
    regions = _bone_slots(base.rig)
    used = np.unique(base.mesh.faces)
    used = used[regions[base.rig.weights[used].argmax(1)] == Slot.HEAD]
    points = body[np.setdiff1d(used, np.concatenate(base.eyes))]
    left, right = (body[eye].mean(0) for eye in base.eyes)
    middle = (np.abs(points[:, 0]) < 0.12) & (points[:, 1] < left[1]) & (points[:, 1] > left[1] - 0.9)
    nose = points[middle][points[middle][:, 2].argmax()]
    sides = points[(points[:, 1] < left[1] + 0.3) & (points[:, 1] > left[1] - 0.7) & (points[:, 2] < left[2] - 0.4)]
    forward = np.array([0.0, 0.0, 0.1])
    ears = (sides[sides[:, 0].argmax()] * 0.98, sides[sides[:, 0].argmin()] * 0.98)
    return np.array([nose, left + forward, right + forward, *ears], dtype=np.float64)


def _joined(parts: list[_Part]) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """One buffer of all parts; a vertex with several texture coordinates is repeated."""
    buffers: list[NDArray[np.void]] = []
    triangles: list[NDArray[np.int32]] = []
    start = 0
    for part in parts:
        faces, corners = part.mesh.faces[part.faces], part.mesh.face_coordinates[part.faces]
        pairs, inverse = np.unique(faces * len(part.mesh.coordinates) + corners, return_inverse=True)
        vertex, texture = np.divmod(pairs, len(part.mesh.coordinates))
        buffer = np.zeros(len(pairs), dtype=VERTEX)
        strongest = np.argpartition(-part.weights, 4, axis=1)[vertex, :4]
        shares = np.take_along_axis(part.weights[vertex], strongest, 1)
        buffer["position"] = part.vertices[vertex]
        buffer["normal"] = _normals(part.vertices, faces)[vertex]
        buffer["texture"] = part.mesh.coordinates[texture]
        buffer["slot"] = part.slots[vertex]
        buffer["bones"] = strongest
        buffer["shares"] = shares / shares.sum(1, keepdims=True)
        buffers.append(buffer)
        triangles.append((inverse.reshape(-1, 3) + start).astype(np.int32))
        start += len(pairs)
    return np.concatenate(buffers), np.concatenate(triangles)


def _normals(vertices: Floats, faces: Indices) -> Floats:
    """(V, 3) unit normals, the mean of the faces' by area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total: NDArray[np.float64] = np.stack(
        [np.bincount(faces.ravel(), np.repeat(across[:, axis], 3), len(vertices)) for axis in range(3)], axis=1
    )
    return np.asarray(total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9), dtype=np.float32)


def _coarse(vertices: NDArray[np.void], triangles: NDArray[np.int32], cell: float) -> NDArray[np.int32]:
    """The triangles that remain when the vertices of a cell and slot become one; the buffer stays the same."""
    grid = np.floor(vertices["position"] / cell).astype(np.int64) + 512
    keys = ((grid[:, 0] * 1024 + grid[:, 1]) * 1024 + grid[:, 2]) * 32 + vertices["slot"].astype(np.int64)
    first, inverse = np.unique(keys, return_index=True, return_inverse=True)[1:]
    merged = first[inverse.ravel()][triangles]
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (a != c)]
    return np.unique(merged, axis=0).astype(np.int32)
