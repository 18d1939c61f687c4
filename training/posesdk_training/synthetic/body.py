"""Random bodies: the base mesh, changed by MakeHuman's macro targets."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import AssetFolder, Mesh, read_mesh, read_target
from posesdk_training.synthetic.rig import Rig, load_rig

__all__ = ["Base", "BodyShape", "load_base", "random_shape", "shaped_vertices"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

EYES = ("helper-l-eye", "helper-r-eye")
SKIRT = "helper-skirt"


@dataclass(frozen=True, slots=True)
class Base:
    """What all bodies share: mesh, skirt, rig, the vertices of the eyes (left, right), and targets read so far."""

    assets: AssetFolder
    mesh: Mesh
    skirt: Mesh
    rig: Rig
    eyes: tuple[Indices, Indices]
    targets: dict[str, tuple[Indices, Floats]] = field(default_factory=dict)

    def target(self, name: str) -> tuple[Indices, Floats]:
        """A macro target; read once."""
        if name not in self.targets:
            self.targets[name] = read_target(self.assets.target(name))
        return self.targets[name]


@dataclass(frozen=True, slots=True)
class BodyShape:
    """A body in words and numbers; `races` are the shares of african, asian and caucasian shapes; `height` -1..1."""

    sex: str
    age: str
    races: tuple[float, float, float]
    muscle: str
    weight: str
    extremity: float
    height: float


def load_base(assets: AssetFolder) -> Base:
    """Base mesh and rig."""
    mesh = read_mesh(assets.base, ("body", *EYES))
    left, right = (np.unique(read_mesh(assets.base, (name,)).faces) for name in EYES)
    skirt = read_mesh(assets.base, (SKIRT,))
    return Base(assets, mesh, skirt, load_rig(assets, mesh.vertices), (left, right))


def random_shape(rng: np.random.Generator) -> BodyShape:
    """15 % children, 17 % old; sexes alike."""
    races = rng.dirichlet([0.6, 0.6, 0.6])
    return BodyShape(
        sex=str(rng.choice(["male", "female"])),
        age=str(rng.choice(["young", "old", "child"], p=[0.68, 0.17, 0.15])),
        races=(float(races[0]), float(races[1]), float(races[2])),
        muscle=str(rng.choice(["min", "average", "max"], p=[0.3, 0.45, 0.25])),
        weight=str(rng.choice(["min", "average", "max"], p=[0.25, 0.45, 0.3])),
        extremity=float(rng.random()),
        height=float(np.clip(rng.normal() * 0.35, -1, 1)),
    )


def shaped_vertices(base: Base, shape: BodyShape) -> Floats:
    """(V, 3) base mesh vertices of a body."""
    vertices = base.mesh.vertices.copy()
    kind = f"{shape.sex}-{shape.age}"
    blend = [
        (f"{race}-{kind}", share) for race, share in zip(("african", "asian", "caucasian"), shape.races, strict=True)
    ]
    end = "max" if shape.height > 0 else "min"
    for muscle, weight, share in (
        (shape.muscle, shape.weight, shape.extremity),
        ("average", "average", 1 - shape.extremity),
    ):
        build = f"{kind}-{muscle}muscle-{weight}weight"
        blend.append((f"universal-{build}", share))
        blend.append((f"height/{build}-{end}height", abs(shape.height) * share))
    for name, share in blend:
        if share > 1e-3:
            indices, displacements = base.target(name)
            vertices[indices] += np.float32(share) * displacements
    return vertices
