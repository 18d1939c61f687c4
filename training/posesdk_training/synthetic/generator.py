"""Picture number i of a run: it depends on the settings and on (seed, i) alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import AssetFolder
from posesdk_training.synthetic.backgrounds import Backgrounds, background_photos
from posesdk_training.synthetic.cast import Cast
from posesdk_training.synthetic.compose import composed
from posesdk_training.synthetic.lights import random_lights
from posesdk_training.synthetic.materials import pattern_layers, random_materials
from posesdk_training.synthetic.renderer import Renderer
from posesdk_training.synthetic.scene import random_scene
from posesdk_training.synthetic.visibility import Annotation, annotated

__all__ = ["Generator", "Picture", "Settings"]

PICTURE_STREAM, PATTERN_STREAM = 1, 4


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides about the pictures; `people` are the least and the most people in a picture."""

    assets: Path
    backgrounds: tuple[str, ...]
    size: int
    seed: int
    people: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """`image` (H, W, 3) uint8 BGR and what is to be seen in it."""

    image: NDArray[np.uint8]
    annotations: list[Annotation]


class Generator:
    """Makes pictures. Raises DataError for assets and backgrounds that cannot be read, and what Renderer raises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backgrounds = Backgrounds(tuple(background_photos(source) for source in settings.backgrounds))
        self._cast = Cast(AssetFolder(settings.assets), seed=settings.seed)
        rng = np.random.default_rng((settings.seed, PATTERN_STREAM))
        layers = pattern_layers(rng, self._backgrounds.samples(rng, 30))
        self._renderer = Renderer(self._cast, (settings.size, settings.size), layers)

    def picture(self, index: int) -> Picture:
        """Picture `index`."""
        settings = self._settings
        rng = np.random.default_rng((settings.seed, PICTURE_STREAM, index))
        scene = random_scene(rng, self._cast, (settings.size, settings.size), _count(rng, settings.people))
        lights = random_lights(rng, scene.camera)
        materials = [random_materials(rng) for _ in scene.people]
        drawing = self._renderer.draw(scene, lights, materials)
        finished = composed(rng, drawing, self._backgrounds, scene.camera)
        return Picture(finished.image, annotated(scene, finished.ids, drawing.depths))


def _count(rng: np.random.Generator, people: tuple[int, int]) -> int:
    """A number of people; few are likelier than many."""
    numbers = np.arange(people[0], people[1] + 1)
    shares = 1.0 / np.maximum(numbers, 1) ** 1.2
    return int(rng.choice(numbers, p=shares / shares.sum()))
