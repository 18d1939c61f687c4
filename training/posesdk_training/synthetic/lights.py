"""Random light: a sun, a sky, the ground's reflection and a fill light."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.camera import Camera

__all__ = ["Lights", "random_lights"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lights:
    """Directions are unit vectors in the camera's frame, towards the light; colors are linear RGB."""

    sun: Floats
    sun_color: Floats
    fill: Floats
    fill_color: Floats
    sky_color: Floats
    ground_color: Floats
    casts_shadow: bool

    def uniforms(self) -> dict[str, Floats]:
        """The values by their names in the shaders."""
        names = ("sun", "sun_color", "fill", "fill_color", "sky_color", "ground_color")
        return {name: getattr(self, name) for name in names}


def random_lights(rng: np.random.Generator, camera: Camera) -> Lights:
    """The sun rather from the front than from behind, and mostly from above."""
    sun = rng.normal(size=3)
    sun[2] = abs(sun[2]) * 0.7
    sun = sun / np.linalg.norm(sun) + camera.up * rng.uniform(0.2, 1.5)
    sun /= np.linalg.norm(sun)
    fill = rng.normal(size=3)
    ambient = rng.uniform(0.2, 0.75)
    return Lights(
        sun=sun,
        sun_color=rng.uniform(0.85, 1.15, 3) * rng.uniform(0.1, 1.3),
        fill=fill / np.linalg.norm(fill),
        fill_color=rng.uniform(0, 0.4) * rng.uniform(0.8, 1.2, 3),
        sky_color=rng.uniform(0.85, 1.15, 3) * ambient,
        ground_color=rng.uniform(0.8, 1.2, 3) * ambient * rng.uniform(0.25, 0.9),
        casts_shadow=bool(rng.random() < 0.6 and sun @ camera.up > 0.25),
    )
