"""What a person wears: chosen at random, and fitted to the body."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import AssetFolder, FittedMesh, read_fitted

__all__ = ["Outfit", "Wardrobe", "fitted_vertices", "fitted_weights", "random_outfit"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outfit:
    """Names of what is worn; None for nothing of the kind. `skirt`: over the legs."""

    suit: str | None
    shoes: str | None
    hair: str | None
    hat: str | None
    skirt: bool


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """The fitted meshes of an asset folder by kind, each read when it is first worn."""

    assets: AssetFolder
    read: dict[tuple[str, str], FittedMesh] = field(default_factory=dict)

    def names(self, kind: str, prefix: str) -> list[str]:
        """What there is of a kind (clothes, hair, eyebrows) with names that start with `prefix`."""
        return [name for name in self.assets.worn(kind) if name.startswith(prefix)]

    def __call__(self, kind: str, name: str) -> FittedMesh:
        """One mesh."""
        if (kind, name) not in self.read:
            self.read[(kind, name)] = read_fitted(self.assets.worn(kind)[name])
        return self.read[(kind, name)]


LONG_HAIR = ("bob", "braid", "long", "ponytail")


def random_outfit(rng: np.random.Generator, wardrobe: Wardrobe, sex: str) -> Outfit:
    """A suit on 80 % of the people (else the painted body stands for tight clothes), shoes and hair on 85 %."""
    other = "female" if sex == "male" else "male"
    drawn = rng.random()
    suits = wardrobe.names("clothes", f"{sex if drawn < 0.72 else other}_") if drawn < 0.8 else []
    hair = wardrobe.names("hair", "")
    if sex == "male":
        hair = [name for name in hair if not name.startswith(LONG_HAIR)]
    return Outfit(
        suit=_one(rng, suits, 1.0),
        shoes=_one(rng, wardrobe.names("clothes", "shoes"), 0.85),
        hair=_one(rng, hair, 0.85),
        hat=_one(rng, wardrobe.names("clothes", "fedora"), 0.08),
        skirt=bool(sex == "female" and rng.random() < 0.25),
    )


def _one(rng: np.random.Generator, names: list[str], probability: float) -> str | None:
    drawn = rng.random()
    return str(rng.choice(names)) if names and drawn < probability else None


def fitted_vertices(worn: FittedMesh, body: Floats) -> Floats:
    """(W, 3) vertices of what is worn on a body with base mesh vertices (V, 3)."""
    scale = np.ones(3, dtype=np.float32)
    for axis, (first, second, distance) in worn.scale.items():
        scale[axis] = abs(body[first, axis] - body[second, axis]) / distance
    return np.asarray((body[worn.bound] * worn.shares[..., None]).sum(1) + worn.offsets * scale, dtype=np.float32)


def fitted_weights(worn: FittedMesh, weights: Floats) -> Floats:
    """(W, B) bone weights of what is worn, from the body's (V, B)."""
    shares = np.clip(worn.shares, 0, None) + 1e-6
    blended = (weights[worn.bound] * shares[..., None]).sum(1)
    return np.asarray(blended / blended.sum(1, keepdims=True), dtype=np.float32)
