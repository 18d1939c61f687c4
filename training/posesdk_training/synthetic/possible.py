"""Which poses put a limb through the body: distances between the segments of a stick figure."""

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.rig import Rig

__all__ = ["possible_poses"]

Floats = NDArray[np.float64]

SAMPLES = 5

CLEARANCES: tuple[tuple[tuple[str, str], tuple[str, str], float], ...] = (
    (("lowerarm01.L", "wrist.L"), ("root", "spine01"), 1.25),
    (("lowerarm01.R", "wrist.R"), ("root", "spine01"), 1.25),
    (("lowerarm01.L", "wrist.L"), ("neck02", "head"), 0.8),
    (("lowerarm01.R", "wrist.R"), ("neck02", "head"), 0.8),
    (("lowerarm01.L", "wrist.L"), ("lowerarm01.R", "wrist.R"), 0.7),
    (("lowerarm01.L", "wrist.L"), ("upperarm01.R", "lowerarm01.R"), 0.7),
    (("lowerarm01.R", "wrist.R"), ("upperarm01.L", "lowerarm01.L"), 0.7),
    (("lowerarm01.L", "wrist.L"), ("upperleg01.L", "lowerleg01.L"), 0.9),
    (("lowerarm01.R", "wrist.R"), ("upperleg01.R", "lowerleg01.R"), 0.9),
    (("lowerarm01.L", "wrist.L"), ("upperleg01.R", "lowerleg01.R"), 0.9),
    (("lowerarm01.R", "wrist.R"), ("upperleg01.L", "lowerleg01.L"), 0.9),
    (("lowerleg01.L", "foot.L"), ("lowerleg01.R", "foot.R"), 0.9),
    (("lowerleg01.L", "foot.L"), ("upperleg02.R", "lowerleg01.R"), 0.9),
    (("lowerleg01.R", "foot.R"), ("upperleg02.L", "lowerleg01.L"), 0.9),
    (("lowerleg01.L", "lowerleg02.L"), ("spine05", "spine01"), 1.8),
    (("lowerleg01.R", "lowerleg02.R"), ("spine05", "spine01"), 1.8),
)
"""Two segments between the heads of bones, and the least distance between them, in dm, on a body of 17 dm."""


def possible_poses(rig: Rig, moved: Floats) -> NDArray[np.bool_]:
    """(P,) whether no limb goes through the body, for poses with bone heads `moved` (P, B, 3)."""
    result = np.ones(len(moved), dtype=np.bool_)
    for first, second, clearance in CLEARANCES:
        one, other = _points(rig, moved, first), _points(rig, moved, second)
        gaps = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1)  # (P, SAMPLES, SAMPLES)
        result &= gaps.min((1, 2)) >= clearance
    return result


def _points(rig: Rig, moved: Floats, segment: tuple[str, str]) -> Floats:
    """(P, SAMPLES, 3) points along a segment."""
    start, end = (moved[:, rig.number(name), None] for name in segment)
    return np.asarray(start + np.linspace(0, 1, SAMPLES)[None, :, None] * (end - start))
