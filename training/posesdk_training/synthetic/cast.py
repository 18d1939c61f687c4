"""The people of a run: characters and poses that depend on the seed alone, made when they are first needed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import AssetFolder
from posesdk_training.synthetic.body import load_base
from posesdk_training.synthetic.character import Character, build_character, face_points
from posesdk_training.synthetic.clothing import Wardrobe
from posesdk_training.synthetic.motion import captured_poses
from posesdk_training.synthetic.poses import ARM, LEG, sample_library
from posesdk_training.synthetic.rig import JOINT_BONES, posed_bones, skinning_matrices

__all__ = ["SOLE", "Cast", "Limb"]

Floats = NDArray[np.float64]

CONTACTS = ("foot.L", "foot.R", "wrist.L", "wrist.R", "head", "upperleg01.L", "lowerleg01.L", "lowerleg01.R")
"""Bones whose lowest head stands on the ground."""

SOLE = 0.9
"""From an ankle to the ground, in dm."""

CHARACTER_STREAM, POSE_STREAM = 2, 3


LIMBS = {
    "arm": ("spine01", ARM, ("upperarm01", "lowerarm01", "wrist")),
    "leg": ("root", LEG, ("upperleg01", "lowerleg01", "foot")),
}
"""For a kind of limb: the bone of the trunk that carries it, its bones, and the bones whose heads are its keypoints."""


@dataclass(frozen=True, slots=True)
class Limb:
    """One limb in all poses of a library.

    `bones` are its bones, `keypoints` (3,) its numbers in the skeleton, `local` (P, 3, 3) where these are seen from the
    trunk; `turned` (P, 3, 3) and `origins` (P, 3) how the trunk is turned and where it is, from the pelvis.
    """

    bones: NDArray[np.int64]
    keypoints: NDArray[np.int64]
    local: Floats
    turned: Floats
    origins: Floats


class Cast:
    """`size` characters and `poses` poses. Raises DataError for assets that cannot be read.

    `figures` (P, 17, 3) are the keypoints of the poses, dm from the pelvis, on a body that is `figure_height` dm tall.
    """

    def __init__(self, assets: AssetFolder, *, seed: int, size: int = 96, poses: int = 2400) -> None:
        self._seed = seed
        self._base = load_base(assets)
        self._wardrobe = Wardrobe(assets)
        self._characters: dict[int, Character] = {}
        self.size = size
        self.rig = self._base.rig
        self._joints = np.array([self.rig.number(name) for name in JOINT_BONES])
        self._contacts = np.array([self.rig.number(name) for name in CONTACTS])
        self._head = self.rig.number("head")
        body = self._base.mesh.vertices
        heads = self.rig.head_positions(body)
        captured = captured_poses(assets, self.rig)
        self.library = sample_library(
            np.random.default_rng((seed, POSE_STREAM)), self.rig, heads, captured, count=poses
        )
        self.figure_height = float(np.ptp(body[np.unique(self._base.mesh.faces), 1]))
        self.heads = heads
        turned, moved = posed_bones(self.rig, heads, self.library.turns.astype(np.float64))
        self.figures = self._stick_figures(turned, moved, face_points(self._base, body) - heads[self._head])
        self.limbs = tuple(self._limb(name, side, turned, moved) for name in LIMBS for side in "LR")

    def _stick_figures(self, turned: Floats, moved: Floats, face: Floats) -> Floats:
        """(P, 17, 3) keypoints from the root's head; `face` (5, 3) from the head of the skull's bone."""
        faces = face @ turned[:, self._head].transpose(0, 2, 1) + moved[:, self._head, None]
        return np.asarray(np.concatenate([faces, moved[:, self._joints]], axis=1) - moved[:, :1])

    def _limb(self, name: str, side: str, turned: Floats, moved: Floats) -> Limb:
        trunk, bones, joints = LIMBS[name]
        carrier = self.rig.number(trunk)
        points = moved[:, [self.rig.number(f"{joint}.{side}") for joint in joints]]
        return Limb(
            bones=self.rig.starting_with(*bones, side=side),
            keypoints=np.array([5 + JOINT_BONES.index(f"{joint}.{side}") for joint in joints]),
            local=(points - moved[:, carrier, None]) @ turned[:, carrier],
            turned=turned[:, carrier],
            origins=moved[:, carrier] - moved[:, 0],
        )

    def __getitem__(self, index: int) -> Character:
        """Character `index` of the run."""
        if index not in self._characters:
            rng = np.random.default_rng((self._seed, CHARACTER_STREAM, index))
            self._characters[index] = build_character(rng, self._base, self._wardrobe)
        return self._characters[index]

    def posed(self, character: Character, turns: Floats, facing: Floats) -> tuple[Floats, Floats, float]:
        """A character in a pose, turned as a whole by `facing` (3, 3) about its root.

        Returns the skinning matrices (B, 4, 4), the keypoints (17, 3) and the lowest height of the body, in dm.
        """
        turns = turns.copy()
        turns[0] = facing @ turns[0]
        turned, moved = posed_bones(self.rig, character.heads, turns)
        matrices = skinning_matrices(character.heads, turned, moved)
        skull = matrices[self._head]
        face = character.face @ skull[:3, :3].T + skull[:3, 3]
        keypoints = np.concatenate([face, moved[self._joints]])
        return matrices, keypoints, float(moved[self._contacts, 1].min()) - SOLE
