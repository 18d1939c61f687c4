"""Calibration images of a quantization: which ones, and what the two graphs see of them."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.labelled_pictures import list_pictures
from posesdk.pipeline import Pipeline
from posesdk.sources import read_image
from posesdk.verify import OnPicture
from posesdk_converters.recording import FeedRecorder
from posesdk_runtimes.base import Tensor

__all__ = [
    "FEWEST_IMAGES",
    "MOST_IMAGES",
    "CalibrationImages",
    "Feeds",
    "collect_feeds",
    "read_calibration",
    "record_feeds",
]

FEWEST_IMAGES = 100
"""Fewer give ranges that depend on chance; the user has to say that they are enough."""
MOST_IMAGES = 300
"""More change nothing that can be measured, and cost time; a fixed choice is taken from a larger set."""
PERSONS_PER_IMAGE = 4
SEED = 0


@dataclass(frozen=True)
class CalibrationImages:
    """The images that are used, in order of name; `sha256` is of their content, `source` what the user named."""

    source: Path
    paths: tuple[Path, ...]
    sha256: str

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """Each image (H, W, 3) uint8 BGR. Raises SourceError for one that cannot be read."""
        return (read_image(path) for path in self.paths)


@dataclass(frozen=True, eq=False)
class Feeds:
    """Inputs of both graphs: `trunk` images (1, H, W, 3) uint8, `adapt` contexts (N, ...) float32.

    The contexts are of the poses that the float model's centers give; images without any give none.
    """

    trunk: tuple[Tensor, ...]
    adapt: tuple[Tensor, ...]


def read_calibration(source: Path, *, few_allowed: bool = False) -> CalibrationImages:
    """The images of a folder, with those of its folders, or of a COCO annotation file.

    The images of an annotation file lie beside it or in `images` beside it. At most MOST_IMAGES are chosen, always the
    same ones. Raises SourceError where there are no images or one is missing, ValueError for fewer than FEWEST_IMAGES
    unless that is allowed.
    """
    # By name and each one once, so that a folder and a file that lists it give the same choice.
    paths = sorted(set(list_pictures(source)))
    if len(paths) < FEWEST_IMAGES and not few_allowed:
        raise ValueError(
            f"calibration {source}: {len(paths)} images, at least {FEWEST_IMAGES} are needed for ranges that hold on "
            "other pictures; give more, or say --allow-few-images"
        )
    if len(paths) > MOST_IMAGES:
        paths = sorted(random.Random(SEED).sample(paths, MOST_IMAGES))
    return CalibrationImages(source, tuple(paths), _digest(paths))


def collect_feeds(images: CalibrationImages, pipeline: Pipeline, on_picture: OnPicture | None = None) -> Feeds:
    """What the graphs of the float model's pipeline are fed for these images. Raises SourceError for a broken image.

    `on_picture` is told how many are done.
    """
    decode = pipeline.spec.decode.model_copy(update={"max_people": PERSONS_PER_IMAGE, "flip_test": False})
    spec = pipeline.spec.model_copy(update={"decode": decode})
    return record_feeds(replace(pipeline, spec=spec), images.images(), on_picture)


def record_feeds(pipeline: Pipeline, images: Iterable[NDArray[np.uint8]], on_picture: OnPicture | None = None) -> Feeds:
    """What the graphs of a pipeline are fed for images (H, W, 3) uint8 BGR, with its own settings of the decoder."""
    trunk = FeedRecorder(pipeline.trunk)
    adapt = None if pipeline.adapt is None else FeedRecorder(pipeline.adapt)
    recorded = replace(pipeline, trunk=trunk, adapt=adapt)
    for done, image in enumerate(images, start=1):
        recorded.run(image)
        if on_picture is not None:
            on_picture(done)
    contexts = [] if adapt is None else [feed["context"] for feed in adapt.feeds]
    return Feeds(tuple(feed["image"] for feed in trunk.feeds), tuple(contexts))


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
