"""The surface of a figure as a distance field: which rays meet it, and which points the sun reaches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_converters.rendering.figure import Figure, Floats, Material

__all__ = ["Surface"]

REACH = 1.15
"""No part of a figure is farther than this from its middle axis."""
STEPS = 40
HIT = 0.0015
CHUNK = 4096
"""Points taken at once: their distances to all parts fit into a core's cache."""
BLEND: dict[Material, float] = {"skin": 0.007, "hair": 0.008, "shirt": 0.013, "trousers": 0.011, "shoes": 0.006}
"""How softly two parts of one material flow into each other, in metres."""
HEM, WAIST = 0.915, 0.225
"""The shirt ends at this height, and nearer to the middle than this: sleeves hang lower."""
MIDDLE = np.array([0, 1, 0], np.float32)


@dataclass(frozen=True)
class Surface:
    """The distance field of a figure, in its own frame.

    Of a point p, both the square distance to each part's start and the way along its axis are linear in
    (p^2, p, 1), so that one matrix product serves all P parts: `weights` is (2 P, 7).
    """

    weights: Floats
    lengths: Floats
    radii: Floats
    tapers: Floats
    shrink: Floats
    materials: dict[Material, slice]

    @classmethod
    def of(cls, figure: Figure) -> "Surface":
        """The surface of a figure's parts."""
        names = sorted({part.material for part in figure.parts})
        parts = [part for name in names for part in figure.parts if part.material == name]
        counts = np.cumsum([0] + [sum(part.material == name for part in parts) for name in names])
        start = np.stack([part.start for part in parts]) - MIDDLE
        scale = np.array([part.scale for part in parts], np.float32)
        axis = (np.stack([part.end - part.start for part in parts]) / scale).astype(np.float32)
        radii = np.array([part.radii for part in parts], np.float32)
        reach = start / scale
        squares = np.hstack([1 / scale**2, -2 * start / scale**2, (reach**2).sum(axis=1, keepdims=True)])
        ways = np.hstack([np.zeros_like(scale), axis / scale, -(reach * axis).sum(axis=1, keepdims=True)])
        return cls(
            np.vstack([squares, ways]).astype(np.float32),
            np.maximum((axis**2).sum(axis=1), 1e-9).astype(np.float32),
            radii[:, 0],
            radii[:, 1] - radii[:, 0],
            scale.min(axis=1),
            {name: slice(int(counts[i]), int(counts[i + 1])) for i, name in enumerate(names)},
        )

    def distances(self, points: Floats) -> Floats:
        """Distance (M, materials) of points (M, 3) to each material, in the order of `materials`."""
        found = np.empty((len(points), len(self.materials)), np.float32)
        for begin in range(0, len(points), CHUNK):
            found[begin : begin + CHUNK] = self._distances(points[begin : begin + CHUNK])
        return found

    def nearest(self, points: Floats) -> Floats:
        """Distance (M,) of points (M, 3) to the figure."""
        return np.asarray(self.distances(points).min(axis=1), np.float32)

    def _distances(self, points: Floats) -> Floats:
        near = points - MIDDLE
        features = np.hstack([near * near, near, np.ones((len(near), 1), np.float32)])
        squares, ways = np.split(self.weights @ features.T, 2)  # (P, M) each
        along = np.clip(ways / self.lengths[:, None], 0, 1)
        gaps = np.sqrt(np.maximum(squares - along * (2 * ways - along * self.lengths[:, None]), 0))
        gaps = (gaps - self.radii[:, None] - along * self.tapers[:, None]) * self.shrink[:, None]
        found = []
        for name, block in self.materials.items():
            least = gaps[block].min(axis=0)
            distance = least - BLEND[name] * np.log(np.exp((least - gaps[block]) / BLEND[name]).sum(axis=0))
            found.append(_trim(name, distance, points))
        return np.stack(found, axis=1)

    def normals(self, points: Floats) -> Floats:
        """Unit normals (M, 3) of the surface at points (M, 3), from differences along the corners of a tetrahedron."""
        total = np.zeros_like(points)
        for corner in np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32):
            total += corner * self.nearest(points + 0.004 * corner)[:, None]
        return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9), np.float32)

    def sunlight(self, points: Floats, sun: Floats, *, steps: int = 12) -> Floats:
        """Share (M,) of the sun that reaches each point past the figure, with soft edges."""
        light, way = np.ones(len(points), np.float32), np.full(len(points), 0.03, np.float32)
        for _ in range(steps):
            gap = self.nearest(points + way[:, None] * sun)
            light = np.minimum(light, np.clip(0.5 + 7 * gap / way, 0, 1))
            way += np.clip(gap, 0.02, 0.3)
        return light * light * (3 - 2 * light)

    def cast_rays(self, eye: Floats, directions: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """Whether each ray (M, 3) from `eye` meets the figure, and after which way (M,)."""
        middle = float(np.hypot(eye[0], eye[2]))
        way = np.full(len(directions), max(middle - REACH, 0.05), np.float32)
        hit = np.zeros(len(directions), bool)
        active = np.arange(len(directions))
        for _ in range(STEPS):
            gap = self.nearest(eye + directions[active] * way[active, None])
            way[active] += gap
            hit[active] = gap < HIT
            active = active[(gap >= HIT) & (way[active] < middle + REACH)]
            if not len(active):
                break
        return hit, way


def _trim(name: Material, distance: Floats, points: Floats) -> Floats:
    """The hair ends at the face, the shirt at its hem."""
    if name == "hair":
        hairline = np.maximum(0.012, 0.025 + 0.9 * (points[:, 1] - 1.665))
        return np.maximum(distance, 0.7 * (points[:, 2] - hairline))
    if name == "shirt":
        return np.where(np.abs(points[:, 0]) < WAIST, np.maximum(distance, HEM - points[:, 1]), distance)
    return distance
