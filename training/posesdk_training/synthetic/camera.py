"""The camera: at the origin, looking along -z of its own frame, y up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.rotations import axis_rotation

__all__ = ["Camera", "random_camera"]

Floats = NDArray[np.float64]

NEAR, FAR = 0.5, 600.0


@dataclass(frozen=True, slots=True)
class Camera:
    """`rotation` (3, 3) from the world's axes to the camera's; `focal` in px; image `width` and `height`.

    Pixels are numbered as in all of the project: (0, 0) is the center of the top-left one.
    """

    rotation: Floats
    focal: float
    width: int
    height: int

    @property
    def up(self) -> Floats:
        """(3,) the world's up in the camera's frame."""
        return np.asarray(self.rotation[:, 1])

    @property
    def projection(self) -> Floats:
        """(4, 4) OpenGL projection matrix."""
        matrix = np.zeros((4, 4))
        matrix[0, 0] = 2 * self.focal / self.width
        matrix[1, 1] = 2 * self.focal / self.height
        matrix[2, 2] = -(FAR + NEAR) / (FAR - NEAR)
        matrix[2, 3] = -2 * FAR * NEAR / (FAR - NEAR)
        matrix[3, 2] = -1
        return matrix

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Points (..., 3) in the camera's frame -> px (..., 2) and depths (...) along the view, negative behind."""
        depths = -points[..., 2]
        safe = np.maximum(depths, 0.1)[..., None]
        middle = np.array([self.width / 2 - 0.5, self.height / 2 - 0.5])
        return points[..., :2] * np.array([1.0, -1.0]) * self.focal / safe + middle, depths

    def unproject(self, pixel: tuple[float, float], depth: float) -> Floats:
        """(3,) the point in the world's axes that is seen at a pixel, at a depth."""
        x = (pixel[0] - self.width / 2 + 0.5) * depth / self.focal
        y = -(pixel[1] - self.height / 2 + 0.5) * depth / self.focal
        return np.asarray(self.rotation.T @ np.array([x, y, -depth]))


def random_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """Vertical field of view 28 to 70 degrees, mostly level, of an image of `size` (width, height)."""
    width, height = size
    view = np.deg2rad(rng.uniform(28, 70))
    pitch = float(np.clip(rng.normal(-0.08, 0.18), -0.8, 0.4))
    roll = rng.normal(0, 0.05) if rng.random() < 0.88 else rng.normal(0, 0.3)
    rotation = axis_rotation("x", -pitch) @ axis_rotation("z", roll)
    return Camera(np.asarray(rotation), float(0.5 * height / np.tan(view / 2)), width, height)
