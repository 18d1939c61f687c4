"""A clothed human figure made of rounded limbs, with the 17 COCO keypoints on its joints.

Own frame of a figure: metres, x to its left, y up, z forward, the ground at y = 0; it is 1.75 m tall.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Figure", "Floats", "Material", "Part", "Posture", "Wardrobe", "build_figure"]

Floats = NDArray[Any]
"""Arrays of float32 or float64."""
Material = Literal["skin", "hair", "shirt", "trousers", "shoes"]
Point = Sequence[float] | Floats

UPPER_ARM, FOREARM, HAND = 0.285, 0.25, 0.17
THIGH, SHANK = 0.43, 0.42
SHOULDER = np.array([0.185, 1.415, -0.01], np.float32)
HIP = np.array([0.092, 0.93, 0.0], np.float32)
SOLE = 0.085
"""Height of the ankle above the ground."""


@dataclass(frozen=True)
class Part:
    """A cone with round ends from `start` (radius `radii[0]`) to `end`; space is stretched by `scale` about `start`."""

    material: Material
    start: Floats
    end: Floats
    radii: tuple[float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Posture:
    """Joint angles in radians, (left, right): forward swing, sideward spread, turn of the arm, bends."""

    arm_swing: tuple[float, float] = (0.03, 0.03)
    arm_spread: tuple[float, float] = (0.14, 0.14)
    arm_turn: tuple[float, float] = (0.0, 0.0)
    elbow: tuple[float, float] = (0.25, 0.25)
    thigh_swing: tuple[float, float] = (0.0, 0.0)
    thigh_spread: tuple[float, float] = (0.05, 0.05)
    knee: tuple[float, float] = (0.04, 0.04)


@dataclass(frozen=True)
class Wardrobe:
    """What is worn, and the girth of the body against the average."""

    long_sleeves: bool = False
    shorts: bool = False
    long_hair: bool = False
    girth: float = 1.0


@dataclass
class Figure:
    """Parts and keypoints (17, 3) in the figure's own frame."""

    girth: float
    parts: list[Part] = field(default_factory=list)
    keypoints: Floats = field(default_factory=lambda: np.zeros((17, 3), np.float32))

    def add(
        self,
        material: Material,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        *,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Appends one part, widened by the figure's girth where it is no head, hand or shoe."""
        wide = 1.0 if material in ("hair", "shoes") else self.girth
        ends = np.asarray(start, np.float32), np.asarray(end, np.float32)
        self.parts.append(Part(material, *ends, (radii[0] * wide, radii[1] * wide), scale))


def build_figure(posture: Posture, wardrobe: Wardrobe) -> Figure:
    """The figure in a posture, standing on its lower foot."""
    figure = Figure(wardrobe.girth)
    _add_head(figure, wardrobe)
    _add_torso(figure)
    for side in (0, 1):
        _add_arm(figure, posture, wardrobe, side)
        _add_leg(figure, posture, wardrobe, side)
    drop = np.array([0.0, figure.keypoints[15:17, 1].min() - SOLE, 0.0], np.float32)
    parts = [Part(p.material, p.start - drop, p.end - drop, p.radii, p.scale) for p in figure.parts]
    return Figure(figure.girth, parts, figure.keypoints - drop)


def _add_head(figure: Figure, wardrobe: Wardrobe) -> None:
    figure.add("skin", (0, 1.675, -0.008), (0, 1.66, -0.008), (0.1, 0.098), scale=(0.76, 1, 0.95))
    figure.add("skin", (0, 1.62, 0.02), (0, 1.572, 0.052), (0.068, 0.036), scale=(0.86, 1, 1))
    figure.add("skin", (0, 1.65, 0.086), (0, 1.618, 0.099), (0.007, 0.012))
    figure.add("skin", (0, 1.43, -0.02), (0, 1.58, -0.005), (0.06, 0.053))
    for side in (1, -1):
        figure.add(
            "skin", (side * 0.079, 1.65, 0.0), (side * 0.077, 1.625, 0.005), (0.026, 0.018), scale=(0.45, 1, 0.7)
        )
    figure.add("hair", (0, 1.69, -0.018), (0, 1.672, -0.03), (0.106, 0.1), scale=(0.81, 1, 0.97))
    if wardrobe.long_hair:
        figure.add("hair", (0, 1.66, -0.055), (0, 1.44, -0.075), (0.092, 0.075), scale=(1.05, 1, 0.55))
    head = [(0, 1.615, 0.115), (0.032, 1.655, 0.085), (-0.032, 1.655, 0.085), (0.082, 1.64, 0), (-0.082, 1.64, 0)]
    figure.keypoints[:5] = head


def _add_torso(figure: Figure) -> None:
    figure.add("shirt", (-0.07, 0.9, -0.003), (0.07, 0.9, -0.003), (0.132, 0.132), scale=(1, 1, 0.97))
    figure.add("shirt", (-0.055, 0.98, 0.0), (0.055, 0.98, 0.0), (0.128, 0.128), scale=(1, 1, 0.95))
    figure.add("shirt", (0, 1.06, 0.0), (0, 1.28, 0.0), (0.158, 0.17), scale=(1, 1, 0.7))
    figure.add("shirt", (-0.07, 1.32, 0.0), (0.07, 1.32, 0.0), (0.112, 0.112), scale=(1, 1, 0.92))
    figure.add("shirt", (-0.16, 1.4, -0.01), (0.16, 1.4, -0.01), (0.06, 0.06))
    for side in (1, -1):
        figure.add("shirt", (side * 0.035, 1.478, -0.03), (side * 0.165, 1.42, -0.015), (0.046, 0.052))
        figure.add("trousers", (side * 0.06, 0.93, -0.005), (side * 0.075, 0.88, 0), (0.118, 0.1), scale=(1, 1, 0.98))


def _add_arm(figure: Figure, posture: Posture, wardrobe: Wardrobe, side: int) -> None:
    mirror = _mirror(side)
    turn = _about_x(-posture.arm_swing[side]) @ _about_z(posture.arm_spread[side])
    fore_turn = turn @ _about_y(posture.arm_turn[side]) @ _about_x(-posture.elbow[side])
    shoulder = SHOULDER * mirror
    elbow = shoulder + _down(turn, UPPER_ARM) * mirror
    wrist = elbow + _down(fore_turn, FOREARM) * mirror
    knuckles = wrist + _down(fore_turn, HAND * 0.5) * mirror
    tips = wrist + _down(fore_turn @ _about_x(-0.25), HAND) * mirror
    thumb = wrist + (fore_turn @ np.array([0.0, -0.09, 0.045], np.float32)) * mirror
    sleeve: Material = "shirt" if wardrobe.long_sleeves else "skin"
    middle = shoulder + (elbow - shoulder) * 0.62
    figure.add("shirt", shoulder, middle, (0.064, 0.057))
    figure.add(sleeve, shoulder, elbow, (0.056, 0.045) if wardrobe.long_sleeves else (0.05, 0.04))
    cuff = 1.15 if wardrobe.long_sleeves else 1.0
    figure.add(sleeve, elbow, elbow + (wrist - elbow) * 0.35, (0.042 * cuff, 0.042 * cuff))
    figure.add(sleeve, elbow + (wrist - elbow) * 0.35, wrist, (0.042 * cuff, 0.027 * cuff))
    figure.add("skin", wrist, knuckles, (0.028, 0.036))
    figure.add("skin", knuckles, tips, (0.034, 0.017))
    figure.add("skin", wrist, thumb, (0.018, 0.012))
    figure.keypoints[[5 + side, 7 + side, 9 + side]] = shoulder, elbow, wrist


def _add_leg(figure: Figure, posture: Posture, wardrobe: Wardrobe, side: int) -> None:
    mirror = _mirror(side)
    turn = _about_x(-posture.thigh_swing[side]) @ _about_z(posture.thigh_spread[side])
    shank_turn = turn @ _about_x(posture.knee[side]) @ _about_z(-0.6 * posture.thigh_spread[side])
    hip = HIP * mirror
    knee = hip + _down(turn, THIGH) * mirror
    ankle = knee + _down(shank_turn, SHANK) * mirror
    calf = knee + (ankle - knee) * 0.3 + np.array([0, 0, -0.012], np.float32)
    cloth: Material = "skin" if wardrobe.shorts else "trousers"
    figure.add("trousers", hip, knee + (hip - knee) * 0.15, (0.098, 0.075 if wardrobe.shorts else 0.066))
    figure.add(cloth, hip, knee, (0.08, 0.057) if wardrobe.shorts else (0.095, 0.064))
    figure.add(cloth, knee, calf, (0.053, 0.057) if wardrobe.shorts else (0.062, 0.063))
    figure.add(cloth, calf, ankle, (0.057, 0.035) if wardrobe.shorts else (0.063, 0.052))
    foot = _about_y(-0.18) @ shank_turn @ _about_x(-0.5 * posture.knee[side])
    heel = ankle + (foot @ np.array([0, -0.045, -0.035], np.float32)) * mirror
    ball = ankle + (foot @ np.array([0.01, -0.052, 0.11], np.float32)) * mirror
    toes = ankle + (foot @ np.array([0.012, -0.058, 0.17], np.float32)) * mirror
    figure.add("shoes", ankle + (heel - ankle) * 0.3, heel, (0.046, 0.042))
    figure.add("shoes", heel, ball, (0.04, 0.038))
    figure.add("shoes", ankle + (heel - ankle) * 0.4, ball, (0.042, 0.034))
    figure.add("shoes", ball, toes, (0.037, 0.027))
    figure.keypoints[[11 + side, 13 + side, 15 + side]] = hip, knee, ankle


def _mirror(side: int) -> Floats:
    """Left limbs are built as they are, right ones mirrored in x."""
    return np.array([1.0 if side == 0 else -1.0, 1.0, 1.0], np.float32)


def _down(turn: Floats, length: float) -> Floats:
    return turn @ np.array([0.0, -length, 0.0], np.float32)


def _about_x(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)


def _about_y(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)


def _about_z(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
