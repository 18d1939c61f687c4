"""What one more person costs: pictures with as many people as wanted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from peers.finder import Finder, Image
from peers.latency import Latency, Work, measure_latency
from peers.movenet import MoveNet
from peers.ours import Ours
from posesdk.images import read_image
from posesdk_training.evaluation.ground_truth import GroundTruth

__all__ = ["Crowd", "make_crowd", "measure_growth", "whole_person"]

SIZE = (720, 1280)
"""Height and width of a picture of a crowd."""
GREY = 114
AROUND = 0.1
"""Margin of a person's box, in parts of it."""
FILLED = 0.9
"""Part of its place that a person takes."""

Boxes = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """A picture (H, W, 3) uint8 BGR with one person several times, and the boxes (N, 4) x1, y1, x2, y2."""

    image: Image
    boxes: Boxes


def whole_person(truth: GroundTruth, folder: Path) -> Image:
    """The photo's part around the largest standing person of whom every keypoint is labelled."""
    upright = [person for person in truth.persons if person["bbox"][3] > 2 * person["bbox"][2]]
    if not upright:
        raise ValueError(f"{truth.path} has nobody upright to make a crowd of; take more photos")
    best = max(upright, key=lambda person: (person["num_keypoints"], person["area"]))
    image = read_image(folder / truth.images[best["image_id"]]["file_name"], oriented=False)
    x, y, width, height = best["bbox"]
    left, top = max(int(x - AROUND * width), 0), max(int(y - AROUND * height), 0)
    return image[top : int(y + (1 + AROUND) * height), left : int(x + (1 + AROUND) * width)]


def make_crowd(person: Image, count: int) -> Crowd:
    """`count` times the same person on a grid, as large as there is room, on grey."""
    ratio = person.shape[0] / person.shape[1]
    columns = max(range(1, count + 1), key=lambda number: _scale(person, count, number))
    scale = FILLED * _scale(person, count, columns)
    height, width = round(person.shape[0] * scale), max(round(person.shape[0] * scale / ratio), 1)
    small = cv2.resize(person, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    rows = math.ceil(count / columns)
    image = np.full((*SIZE, 3), GREY, np.uint8)
    boxes = []
    for index in range(count):
        row, column = divmod(index, columns)
        left = int((column + 0.5) * SIZE[1] / columns - width / 2)
        top = int((row + 0.5) * SIZE[0] / rows - height / 2)
        image[top : top + height, left : left + width] = small
        boxes.append((left, top, left + width, top + height))
    return Crowd(image, np.array(boxes, np.float32))


def _scale(person: Image, count: int, columns: int) -> float:
    """The largest scale at which so many people fit in so many columns."""
    rows = math.ceil(count / columns)
    height, width = person.shape[:2]
    return min(SIZE[0] / float(rows * height), SIZE[1] / float(columns * width))


def measure_growth(
    finders: Mapping[str, Finder], person: Image, counts: Sequence[int], rounds: int, on_percent: Callable[[int], None]
) -> dict[int, dict[str, Latency]]:
    """The time of each model for each number of people, all in turns, on the same pictures.

    Ours has that many people planted behind its trunk and MoveNet looks at that many boxes, whatever a detector sees;
    the others decode what they find in the picture.
    """
    crowds = [make_crowd(person, count) for count in counts]
    works = {f"{name} {len(crowd.boxes)}": _work(finder, crowd) for crowd in crowds for name, finder in finders.items()}
    measured = measure_latency(works, [crowds[0].image], rounds, on_percent)
    return {count: {name: measured[f"{name} {count}"] for name in finders} for count in counts}


def _work(finder: Finder, crowd: Crowd) -> Work:
    """What is done with a crowd, whatever picture it is called for."""
    if isinstance(finder, Ours):
        planted = finder.planted(len(crowd.boxes))
        return lambda _: planted.poses(crowd.image)
    if isinstance(finder, MoveNet):
        return lambda _: finder.find_in(crowd.image, crowd.boxes)
    return lambda _: finder.poses(crowd.image)
