"""Captured poses: the frames of .bvh files as turns of the rig's bones."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DataError
from posesdk_training.synthetic.assets import AssetFolder
from posesdk_training.synthetic.rig import Rig
from posesdk_training.synthetic.rotations import axis_rotation, rotation_vectors

__all__ = ["captured_poses", "mirrored", "read_motion"]

Floats = NDArray[np.float64]

Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the axes of the .bvh files (z up) to those of the rig (y up)."""

MIN_BONES = 50
"""A file that moves fewer of the rig's bones was made for another rig."""

MAX_FRAMES = 40

EVERYDAY = ("standing", "sit", "walk", "run")
EVERYDAY_REPEATS = 3
"""How many times as often as fights and flights these are used."""


def captured_poses(assets: AssetFolder, rig: Rig) -> Floats:
    """(P, B, 3) turns, as rotation vectors, of all frames of all files that fit the rig."""
    fitting: list[Floats] = []
    for path in assets.motions():
        frames = read_motion(path, rig)
        if len(frames):
            fitting += [frames] * (EVERYDAY_REPEATS if path.stem.startswith(EVERYDAY) else 1)
    if not fitting:
        raise DataError(f"none of the .bvh files in {assets.root / 'poses'} moves the bones of the default rig")
    return np.concatenate(fitting)


def read_motion(path: Path, rig: Rig) -> Floats:
    """(P, B, 3) rotation vectors of one file's frames, thinned; P = 0 for a file of another rig."""
    try:
        words = path.read_text(errors="ignore").split()
        channels, data = _parsed(words)
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"cannot read the motion {path}: {error}") from error
    known = set(rig.names) & {name for name, _ in channels}
    if len(known) < MIN_BONES:
        return np.zeros((0, len(rig.names), 3))
    data = data[:: max(1, len(data) // MAX_FRAMES)]
    vectors = np.zeros((len(data), len(rig.names), 3))
    column = 0
    for name, kinds in channels:
        turn = np.tile(np.eye(3), (len(data), 1, 1))
        for kind in kinds:
            if kind.endswith("rotation"):
                turn = turn @ axis_rotation(kind[0].lower(), np.deg2rad(data[:, column]))
            column += 1
        if name in known:
            vectors[:, rig.number(name)] = rotation_vectors(Z_UP @ turn @ Z_UP.T)
    return vectors


def _parsed(words: list[str]) -> tuple[list[tuple[str, list[str]]], Floats]:
    """The channels of each joint in the order of the columns, and the frames (F, columns)."""
    channels: list[tuple[str, list[str]]] = []
    joint = ""
    position = 0
    while words[position] != "MOTION":
        word = words[position]
        if word in ("ROOT", "JOINT"):
            joint = words[position + 1]
            position += 2
        elif word == "CHANNELS":
            count = int(words[position + 1])
            channels.append((joint, words[position + 2 : position + 2 + count]))
            position += 2 + count
        else:
            position += 1
    frames = int(words[position + 2])  # MOTION Frames: N Frame Time: T
    return channels, np.array(words[position + 6 :], dtype=np.float64).reshape(frames, -1)


def mirrored(vectors: Floats, rig: Rig) -> Floats:
    """Rotation vectors (..., B, 3) of the mirror image of a pose."""
    return np.asarray(vectors[..., rig.mirror, :] * np.array([1.0, -1.0, -1.0]))
