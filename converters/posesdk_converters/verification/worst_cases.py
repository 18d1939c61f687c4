"""Pictures of where a variant differs most from the float model, both drawn side by side."""

from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.draw import draw_poses
from posesdk.pipeline import Estimate
from posesdk.spec import ModelSpec
from posesdk_converters.verification.judge import Judged
from posesdk_converters.verification.photos import Photos
from posesdk_converters.verification.record import Record

__all__ = ["draw_worst_cases"]

PICTURES = 2
"""Of each variant."""
HEIGHT = 360
"""Px of a drawn picture."""
VISIBLE = 1.0
"""Shift of a keypoint in px of the image that is worth a picture."""

Image = NDArray[np.uint8]


def draw_worst_cases(record: Record, photos: Photos, folder: Path) -> list[tuple[str, Path]]:
    """Writes JPEG files into the folder; a title and the path of each. A variant that differs nowhere has none."""
    wanted = {one.variant.name: _worst(one) for one in record.judged}
    names = set(chain.from_iterable(wanted.values()))
    images = {name: image for name, image in photos if name in names}
    order = [name for name, _ in photos] if names else []
    found = []
    for one in record.judged:
        for number, name in enumerate(wanted[one.variant.name], start=1):
            index = order.index(name)
            sides = [_draw(images[name], estimate, record.spec) for estimate in _both(one, index)]
            path = folder / f"{one.variant.name}-worst-{number}.jpg"
            cv2.imwrite(str(path), np.concatenate(sides, axis=1))
            found.append((f"{one.variant.name}, {name}", path))
    return found


def _worst(one: Judged) -> list[str]:
    """Names of pictures, the worst first; none where every person is where the float model has it."""
    if one.verification is None:
        return []
    return [
        name
        for name, comparison in one.verification.deviations.worst(PICTURES)
        if len(comparison.missing) or len(comparison.extra) or comparison.largest_shift >= VISIBLE
    ]


def _both(one: Judged, index: int) -> tuple[Estimate, Estimate]:
    assert one.verification is not None  # only what was run has worst pictures
    return one.float_estimates[index], one.verification.estimates[index]


def _draw(image: Image, estimate: Estimate, spec: ModelSpec) -> Image:
    poses = estimate.to_poses(spec, (image.shape[0], image.shape[1]))
    drawn = draw_poses(image, poses.above(spec.decode.score_threshold))
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    return np.asarray(cv2.resize(drawn, (width, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
