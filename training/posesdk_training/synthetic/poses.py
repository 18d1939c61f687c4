"""Random poses: captured ones mixed with limbs drawn within the ranges of the joints."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.motion import mirrored
from posesdk_training.synthetic.possible import possible_poses
from posesdk_training.synthetic.rig import Rig, posed_bones
from posesdk_training.synthetic.rotations import axis_rotation, rotation_between, rotations

__all__ = ["ARM", "LEG", "PoseLibrary", "jittered", "sample_library"]

Floats = NDArray[np.float64]

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "head")
ARM = ("clavicle", "shoulder", "upperarm", "lowerarm", "wrist", "finger", "metacarpal")
LEG = ("pelvis", "upperleg", "lowerleg", "foot", "toe")
FLEXIBLE = ("upperarm01", "upperleg01", "lowerarm01", "lowerleg01", "spine", "neck", "head")
JITTER = 0.05
"""Standard deviation of the turn, in radians, that makes each use of a pose another one."""


@dataclass(frozen=True, slots=True)
class PoseLibrary:
    """`turns` (P, B, 3, 3) float32 of the bones; none puts a limb through the body."""

    turns: NDArray[np.float32]


def sample_library(rng: np.random.Generator, rig: Rig, heads: Floats, captured: Floats, *, count: int) -> PoseLibrary:
    """`count` possible poses, judged on a body with bone heads `heads` (B, 3); `captured` (C, B, 3) are mixed in."""
    kept: list[NDArray[np.float32]] = []
    while sum(map(len, kept)) < count:
        turns = np.stack([_sampled(rng, rig, heads, captured) for _ in range(max(16, count // 4))])
        moved = posed_bones(rig, heads, turns)[1]
        kept.append(turns[possible_poses(rig, moved)].astype(np.float32))
    return PoseLibrary(np.concatenate(kept)[:count])


def jittered(rng: np.random.Generator, rig: Rig, turns: NDArray[np.float32]) -> Floats:
    """(B, 3, 3) a pose of a library, slightly changed."""
    flexible = rig.starting_with(*FLEXIBLE)
    result = turns.astype(np.float64)
    result[flexible] = result[flexible] @ rotations(rng.normal(0, JITTER, (len(flexible), 3)))
    return result


def _sampled(rng: np.random.Generator, rig: Rig, heads: Floats, captured: Floats) -> Floats:
    """(B, 3, 3): a captured pose, a mixture of two, or one with limbs of our own."""
    kind = rng.random()
    vectors = _captured(rng, rig, captured)
    if kind < 0.45:
        other = _captured(rng, rig, captured)
        for group in _groups(rig):
            if rng.random() < 0.35:
                vectors[group] = other[group]
    turns = rotations(vectors)
    if kind < 0.3:
        return turns
    if rng.random() < 0.75:
        _bend_trunk(rng, rig, turns)
    for side in "LR":
        if rng.random() < 0.8:
            _place_arm(rng, rig, heads, turns, side=side)
    if rng.random() < 0.75:
        sits = rng.random() < 0.25
        base = rng.uniform(1.1, 1.8) if sits else None
        for side in "LR":
            _place_leg(rng, rig, turns, side=side, seat=base)
    return turns


def _captured(rng: np.random.Generator, rig: Rig, captured: Floats) -> Floats:
    vectors = captured[rng.integers(len(captured))] * rng.uniform(0.6, 1.05)
    vectors = mirrored(vectors, rig) if rng.random() < 0.5 else vectors.copy()
    vectors[0] = 0
    return vectors


def _groups(rig: Rig) -> list[NDArray[np.int64]]:
    groups = [rig.starting_with("spine", "neck", "head", "root")]
    return groups + [rig.starting_with(*limb, side=side) for limb in (ARM, LEG) for side in "LR"]


def _bend_trunk(rng: np.random.Generator, rig: Rig, turns: Floats) -> None:
    """Leaning, twisting and bending to a side, with a head that looks somewhere."""
    turns[rig.starting_with("spine", "neck", "head", "root")] = np.eye(3)
    lean = rng.normal(0, 0.22) + (rng.random() < 0.15) * rng.uniform(0.3, 1.2)
    twist, side = rng.normal(0, 0.2), rng.normal(0, 0.12)
    share = len(SPINE)
    for bone in SPINE:
        turns[rig.number(bone)] = _euler(twist / share, lean / share, side / share)
    look = np.clip(rng.normal(0, 0.45), -1.2, 1.2)
    nod = np.clip(rng.normal(0.05, 0.25), -0.7, 0.8) - lean * 0.3
    for bone in NECK:
        turns[rig.number(bone)] = _euler(look / 3, nod / 3, rng.normal(0, 0.05))


def _euler(y: float, x: float, z: float) -> Floats:
    """A turn about z, then x, then y, all along fixed axes."""
    return np.asarray(axis_rotation("y", y) @ axis_rotation("x", x) @ axis_rotation("z", z))


def _place_arm(rng: np.random.Generator, rig: Rig, heads: Floats, turns: Floats, *, side: str) -> None:
    """Hanging (45 %), anywhere that a shoulder reaches (45 %) or raised; the fingers stay as they were."""
    outward = 1.0 if side == "L" else -1.0
    fingers = rig.starting_with("finger", "metacarpal", side=side)
    kept = turns[fingers].copy()
    turns[rig.starting_with(*ARM, side=side)] = np.eye(3)
    turns[fingers] = kept
    shoulder, elbow, wrist = (rig.number(f"{bone}.{side}") for bone in ("upperarm01", "lowerarm01", "wrist"))
    arm, forearm = heads[elbow] - heads[shoulder], heads[wrist] - heads[elbow]
    direction = _arm_direction(rng, outward)
    raised = 0.3 * max(0.0, float(direction[1]))
    turns[rig.number(f"clavicle.{side}")] = axis_rotation("z", outward * raised)
    swing = rotation_between(arm, axis_rotation("z", -outward * raised) @ direction)
    turns[shoulder] = swing @ rotations(arm / np.linalg.norm(arm) * rng.uniform(-1.1, 1.1))
    hinge = np.cross(forearm, [0.0, 0.0, 1.0])
    bend = rng.uniform(0, 0.4) if rng.random() < 0.4 else rng.uniform(0.2, 2.4)
    turns[elbow] = rotations(hinge / np.linalg.norm(hinge) * bend)
    turns[wrist] = rotations(rng.normal(0, 0.25, 3))


def _arm_direction(rng: np.random.Generator, outward: float) -> Floats:
    kind = rng.random()
    if kind < 0.45:
        direction = np.array([outward * rng.uniform(0.02, 0.5), -1.0, rng.normal(0, 0.3)])
    elif kind < 0.9:
        direction = rng.normal(size=3)
        while direction[2] < -0.4 * np.linalg.norm(direction) or direction[0] * outward < -0.5 * np.linalg.norm(
            direction
        ):
            direction = rng.normal(size=3)
    else:
        direction = np.array([outward * rng.uniform(0, 0.7), 1.0, rng.uniform(-0.1, 0.5)])
    return np.asarray(direction / np.linalg.norm(direction))


def _place_leg(rng: np.random.Generator, rig: Rig, turns: Floats, *, side: str, seat: float | None) -> None:
    """Standing, stepping, lifted, or on a seat with a hip bent by `seat` radians."""
    outward = 1.0 if side == "L" else -1.0
    turns[rig.starting_with(*LEG, side=side)] = np.eye(3)
    if seat is not None:
        hip = seat + rng.normal(0, 0.2)
    else:
        drawn = rng.random()
        hip = rng.normal(0, 0.12) if drawn < 0.5 else rng.normal(0.15, 0.5) if drawn < 0.8 else rng.uniform(0.3, 1.9)
    hip = float(np.clip(hip, -0.6, 2.1))
    spread = abs(rng.normal(0, 0.15)) + (rng.random() < 0.12) * rng.uniform(0.2, 0.9)
    twist = rng.normal(0, 0.15)
    if seat is not None or hip > 0.3:
        knee = hip + rng.normal(0, 0.4)
    else:
        knee = abs(rng.normal(0, 0.1)) if rng.random() < 0.7 else rng.uniform(0, 1.5)
    turns[rig.number(f"upperleg01.{side}")] = (
        axis_rotation("y", outward * twist) @ axis_rotation("x", -hip) @ axis_rotation("z", outward * spread)
    )
    turns[rig.number(f"lowerleg01.{side}")] = axis_rotation("x", np.clip(knee, 0, 2.3))
    turns[rig.number(f"foot.{side}")] = axis_rotation("x", rng.normal(0, 0.2))
