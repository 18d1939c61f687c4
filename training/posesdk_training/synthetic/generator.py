"""Picture number i of a run: it depends on the settings and on (seed, i) alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.assets import AssetFolder
from posesdk_training.synthetic.backgrounds import Backgrounds, background_photos
from posesdk_training.synthetic.cast import Cast
from posesdk_training.synthetic.compose import composed
from posesdk_training.synthetic.layouts import layout_scene, read_layouts
from posesdk_training.synthetic.lights import Lights, random_lights
from posesdk_training.synthetic.materials import pattern_layers, random_materials
from posesdk_training.synthetic.renderer import Drawing, Renderer
from posesdk_training.synthetic.scene import Scene, random_scene
from posesdk_training.synthetic.visibility import Annotation, annotated

__all__ = ["Generator", "Picture", "Settings"]

PICTURE_STREAM, PATTERN_STREAM = 1, 4

LAYOUT_SHARE = 0.7
MIN_CUTOUT = 0.45
"""Of the size: what a cutout measures at least."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides about the pictures; `people` are the least and the most people in a picture.

    With `layouts`, LAYOUT_SHARE of the pictures follow the photos of that COCO file. `product`: pictures, or people cut
    out (BGRA, one person each, as large as the size allows). The run draws on `characters` and `poses`.
    """

    assets: Path
    backgrounds: tuple[str, ...]
    size: int
    seed: int
    people: tuple[int, int]
    layouts: Path | None = None
    product: Literal["pictures", "cutouts"] = "pictures"
    characters: int = 96
    poses: int = 2400


@dataclass(frozen=True, slots=True)
class Picture:
    """`image` (H, W, 3) uint8 BGR, or (H, W, 4) BGRA of a cutout, and what is to be seen in it."""

    image: NDArray[np.uint8]
    annotations: list[Annotation]


class Generator:
    """Makes pictures. Raises DataError for assets and backgrounds that cannot be read, and what Renderer raises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backgrounds = Backgrounds(tuple(background_photos(source) for source in settings.backgrounds))
        self._layouts = () if settings.layouts is None else read_layouts(settings.layouts)
        self._cast = Cast(
            AssetFolder(settings.assets), seed=settings.seed, size=settings.characters, poses=settings.poses
        )
        rng = np.random.default_rng((settings.seed, PATTERN_STREAM))
        layers = pattern_layers(rng, self._backgrounds.samples(rng, 30))
        self._renderer = Renderer(self._cast, (settings.size, settings.size), layers)

    def __call__(self, index: int) -> Picture:
        """Product number `index`."""
        rng = np.random.default_rng((self._settings.seed, PICTURE_STREAM, index))
        return self._cutout(rng) if self._settings.product == "cutouts" else self._picture(rng)

    def _picture(self, rng: np.random.Generator) -> Picture:
        scene = self._scene(rng)
        drawing = self._drawn(rng, scene, random_lights(rng, scene.camera))
        finished = composed(rng, drawing, self._backgrounds, scene.camera)
        return Picture(finished.image, annotated(scene, finished.ids, drawing.depths))

    def _cutout(self, rng: np.random.Generator) -> Picture:
        """One person alone; drawn anew until the whole of it is seen."""
        while True:
            scene = random_scene(rng, self._cast, (self._settings.size, self._settings.size), 1)
            lights = replace(random_lights(rng, scene.camera), casts_shadow=False)
            drawing = self._drawn(rng, scene, lights)
            found = annotated(scene, drawing.ids, drawing.depths)
            if found and _is_whole(found[0], self._settings.size):
                return cut_out(drawing, found[0])

    def _scene(self, rng: np.random.Generator) -> Scene:
        least, most = self._settings.people
        size = (self._settings.size, self._settings.size)
        if self._layouts and rng.random() < LAYOUT_SHARE:
            return layout_scene(rng, self._cast, size, self._layouts[rng.integers(len(self._layouts))], most=most)
        return random_scene(rng, self._cast, size, _count(rng, (least, most)))

    def _drawn(self, rng: np.random.Generator, scene: Scene, lights: Lights) -> Drawing:
        return self._renderer.draw(scene, lights, [random_materials(rng) for _ in scene.people])


def _is_whole(annotation: Annotation, size: int) -> bool:
    """Whether a person is large enough to be cut out, and nothing of it lies beyond the edges."""
    x, y, width, height = annotation.box
    inside = min(x, y) > 0 and max(x + width, y + height) < size
    return inside and max(width, height) > MIN_CUTOUT * size and bool((annotation.keypoints[:, 2] == 2).sum() >= 4)


def _count(rng: np.random.Generator, people: tuple[int, int]) -> int:
    """A number of people; few are likelier than many."""
    numbers = np.arange(people[0], people[1] + 1)
    shares = 1.0 / np.maximum(numbers, 1) ** 1.2
    return int(rng.choice(numbers, p=shares / shares.sum()))


def cut_out(drawing: Drawing, annotation: Annotation) -> Picture:
    """The box of a person of a drawing, BGRA with straight alpha, and the annotation in its px."""
    x, y, width, height = annotation.box
    window = np.s_[y : y + height, x : x + width]
    opacity = drawing.opacity[window][..., None]
    color = drawing.color[window] / np.maximum(opacity, 1e-3)
    image = np.concatenate([color, 255 * opacity], axis=2)
    keypoints = annotation.keypoints.copy()
    known = keypoints[:, 2] > 0
    keypoints[known, :2] -= (x, y)
    moved = replace(annotation, keypoints=keypoints, box=(0, 0, width, height), mask=annotation.mask[window])
    return Picture(np.clip(image, 0, 255).astype(np.uint8), [moved])
