"""What keypoint names say: the side of the body, and which names of different data sets mean the same point."""

import re
from collections.abc import Sequence
from typing import Literal

__all__ = ["Side", "canonical_names", "keypoint_sides", "left_right_pairs"]

Side = Literal["left", "right"]

SIDES: dict[str, Side] = {"left": "left", "l": "left", "right": "right", "r": "right"}
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
"""The words of `left_shoulder`, `Left Shoulder`, `leftShoulder`, `LShoulder`, `shoulder.L`."""

SYNONYMS = {
    "head_top": "head",
    "top_head": "head",
    "top_of_head": "head",
    "upper_neck": "neck",
    "sho": "shoulder",
    "elb": "elbow",
    "wri": "wrist",
    "kne": "knee",
    "ank": "ankle",
}
"""Other names of a point, without the side."""


def _words(name: str) -> list[str]:
    return [word.lower() for word in WORD.findall(name)] or [name]


def _split(name: str) -> tuple[Side | None, str]:
    """Side and the rest of a name; a name that says both sides, or nothing else, has no side."""
    words = _words(name)
    sides = {SIDES[word] for word in words if word in SIDES}
    rest = "_".join(word for word in words if word not in SIDES)
    if len(sides) != 1 or (not rest and len(words) > 1):
        return None, "_".join(words)
    return sides.pop(), rest


def keypoint_sides(names: Sequence[str]) -> tuple[Side | None, ...]:
    """The side that each name says, in its words or, where its partner is there too, in a first letter (`lwrist`)."""
    spelled = tuple(_split(name)[0] for name in names)
    known = {name.lower() for name in names}
    return tuple(side or _glued_side(name.lower(), known) for side, name in zip(spelled, names, strict=True))


def _glued_side(name: str, known: set[str]) -> Side | None:
    if name[:1] not in ("l", "r") or len(name) < 4:
        return None
    partner = ("r" if name[0] == "l" else "l") + name[1:]
    return SIDES[name[0]] if partner in known else None


def left_right_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) indices of the names that differ in their side alone, by the left one."""
    sides = keypoint_sides(names)
    rests = [_rest(name, side) for name, side in zip(names, sides, strict=True)]
    right = {rest: index for index, (rest, side) in enumerate(zip(rests, sides, strict=True)) if side == "right"}
    return tuple(
        (index, right.pop(rest))
        for index, (rest, side) in enumerate(zip(rests, sides, strict=True))
        if side == "left" and rest in right
    )


def _rest(name: str, side: Side | None) -> str:
    spelled, rest = _split(name)
    return rest if spelled or side is None else name.lower()[1:]


def canonical_names(names: Sequence[str]) -> tuple[str, ...]:
    """One spelling for what data sets call differently: `l_shoulder`, `LShoulder`, `Left Sho` -> `left_shoulder`.

    The names are those of one skeleton: `lwrist` is a left wrist where there is an `rwrist`.
    """
    sides = keypoint_sides(names)
    rests = [_rest(name, side) for name, side in zip(names, sides, strict=True)]
    return tuple(
        "_".join(part for part in (side, SYNONYMS.get(rest, rest)) if part)
        for side, rest in zip(sides, rests, strict=True)
    )
