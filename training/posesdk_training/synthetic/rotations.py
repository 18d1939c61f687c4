"""Rotation matrices, for many bones or many poses at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["axis_rotation", "rotation_between", "rotation_vectors", "rotations"]

Floats = NDArray[np.float64]


def axis_rotation(axis: str, angle: Any) -> Floats:
    """(..., 3, 3) right-handed turns by `angle` (...) radians about "x", "y" or "z"."""
    angle = np.asarray(angle, dtype=np.float64)
    number = "xyz".index(axis)
    first, second = (number + 1) % 3, (number + 2) % 3
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., number, number] = 1
    matrix[..., first, first] = matrix[..., second, second] = cosine
    matrix[..., second, first], matrix[..., first, second] = sine, -sine
    return matrix


def rotations(vectors: Any) -> Floats:
    """(..., 3) axis times angle -> (..., 3, 3), by Rodrigues' formula."""
    vectors = np.asarray(vectors, dtype=np.float64)
    angle = np.sqrt((vectors**2).sum(-1))[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1.0, np.sin(angle) / safe)
    second = np.where(small, 0.5, (1.0 - np.cos(angle)) / safe**2)
    return np.asarray(np.eye(3) + first * skew + second * (skew @ skew))


def rotation_vectors(matrices: Floats) -> Floats:
    """(..., 3, 3) -> (..., 3) axis times angle; for angles below pi."""
    trace = np.trace(matrices, axis1=-2, axis2=-1)
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    axis = np.stack(
        [
            matrices[..., 2, 1] - matrices[..., 1, 2],
            matrices[..., 0, 2] - matrices[..., 2, 0],
            matrices[..., 1, 0] - matrices[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.sin(angle)
    factor = np.where(sine > 1e-7, angle / np.where(sine > 1e-7, 2 * sine, 1.0), 0.5)
    return np.asarray(axis * factor[..., None])


def rotation_between(start: Floats, end: Floats) -> Floats:
    """(3, 3) the shortest turn that takes direction `start` (3,) to direction `end` (3,)."""
    start = start / np.linalg.norm(start)
    end = end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return rotations(axis / sine * np.arctan2(sine, start @ end))
