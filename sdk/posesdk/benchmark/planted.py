"""Exactly N people for a pipeline to decode and adapt, whatever is in the picture: the cost of a person, measured.

The trunk runs as ever, and its answer is replaced by maps into which N people were drawn as the training targets draw
them. Everything behind the trunk then works on N candidates, and on twice as many where a person has two centers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posesdk.decode import CELL_CENTER
from posesdk.fused import FusedPipeline
from posesdk.pipeline import Pipeline
from posesdk.spec import STRIDE, Frame, ModelSpec
from posesdk_runtimes.base import Runtime, Tensor, TensorSpec

__all__ = ["PlantedPeople", "PlantedTrunk", "mirror_maps", "place_people", "plant_people"]

PERSON_PART = 1 / 3
"""Height of a person as a part of the shorter side of the network's input, where there is room for so many."""
CROWDING = 2.0
"""Most times that a person is as high as the distance to its neighbours: a crowd in which people overlap."""
SLIMNESS = 0.5
"""Width of a person as a part of its height."""
JITTER = 0.1
"""How far a person stands off the middle of its place, as a part of the place, in either direction."""
KEYPOINT_SIGMA, KEYPOINT_RANGE = 0.045, (1.0, 2.0)
CENTER_SIGMA, CENTER_RANGE = 0.08, (1.0, 3.0)
"""Of the Gaussians that the default model was trained on: parts of a person's size, and their limits in cells."""
APART = 8.0
"""Least distance of neighbours in sigmas of a center."""
FAINT = 1e-3
"""A center's Gaussian is 0 below this, so that no two of them touch and none has a maximum between them."""
MARGIN = 2.4 * STRIDE
"""Net px from the border to the nearest center, which is no peak at the border itself, nor half-way between cells."""
LEAST_ROOM = 4
"""Cells from place to place: a center needs some to be a peak."""
MISPLACED = 0.03
"""How far an initial keypoint lies off its peak along an axis: standard deviation, in parts of the person's size."""
HEAD_AND_BODY = (-0.35, 0.0)
"""Height of the centers above the middle of a person, in parts of its height; one center is that of the body."""
PEAK = 0.9
"""Height of every planted Gaussian."""
BACKGROUND = 0.1
"""What the trunk itself sees in keypoint maps stays up to this height: no model's maps are 0 between people."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class PlantedPeople:
    """N people in net px: `keypoints` (N, K, 2), `initial` ones (N, K, 2) that offsets point to, `centers` (N, Q, 2).

    `size` is the square root of a person's box, `spacing` the least distance between the middles of two places.
    """

    keypoints: FloatArray
    initial: FloatArray
    centers: FloatArray
    size: float
    spacing: float


def plant_people(pipeline: Pipeline, count: int, *, seed: int = 0) -> Pipeline:
    """The same graphs, but the trunk answers with `count` people in every image, the same ones for the same seed.

    What the trunk saw in the first image of a size stays as the background of all images of that size, and planting
    costs no time from the second one on. The pipeline takes at least `count` people. Raises ValueError for a fused
    graph, which has nothing between network and decoder, and for a flip test whose two images a trunk with a fixed
    batch of 1 sees one after the other.
    """
    spec = pipeline.spec
    if count < 0:
        raise ValueError(f"expected 0 or more people to plant, got {count}")
    if isinstance(pipeline, FusedPipeline):
        raise ValueError(f"nobody can be planted into the fused graph of {spec.name}; take a variant with two graphs")
    if spec.decode.flip_test and not pipeline.takes_batches:
        raise ValueError(f"nobody can be planted into {spec.name} while its flip test takes two runs; turn it off")
    crowded = spec.decode.model_copy(update={"max_people": max(count, spec.decode.max_people)})
    return replace(pipeline.adjusted(crowded), trunk=PlantedTrunk(pipeline.trunk, spec, count, seed=seed))


class PlantedTrunk:
    """A trunk that runs, and then answers with planted people; what it gives of the heatmaps and offsets is shared."""

    def __init__(self, trunk: Runtime, spec: ModelSpec, count: int, *, seed: int = 0) -> None:
        self.inputs: tuple[TensorSpec, ...] = trunk.inputs
        self.outputs: tuple[TensorSpec, ...] = trunk.outputs
        self._trunk, self._spec, self._count, self._seed = trunk, spec, count, seed
        self._drawn: dict[tuple[int, ...], dict[str, FloatArray]] = {}

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Heatmaps and offsets with the people, read-only, and all else as the trunk gives it.

        Raises ValueError where the map has no room for so many, and what the trunk raises.
        """
        outputs = self._trunk.run(feeds)
        batch, *_, height, width = outputs["heatmaps"].shape
        if (height, width) not in self._drawn:
            self._drawn[height, width] = self._draw(outputs["heatmaps"][0], outputs["offsets"][0])
        drawn = self._drawn[height, width]
        return outputs | {name: _for_batch(maps, batch) for name, maps in drawn.items()}

    def close(self) -> None:
        """Frees the trunk."""
        self._trunk.close()

    def _draw(self, heatmaps: FloatArray, offsets: FloatArray) -> dict[str, FloatArray]:
        """The maps (1, ...) of an image, or (2, ...) with those of its mirror image."""
        height, width = heatmaps.shape[1:]
        people = place_people(self._count, (STRIDE * height, STRIDE * width), self._spec, seed=self._seed)
        maps = {
            "heatmaps": _draw_heatmaps(people, heatmaps, self._spec)[None],
            "offsets": _draw_offsets(people, offsets, self._spec)[None],
        }
        if self._spec.decode.flip_test:
            mirrored = mirror_maps(maps["heatmaps"][0], maps["offsets"][0], self._spec)
            maps = {name: np.stack([own[0], other]) for (name, own), other in zip(maps.items(), mirrored, strict=True)}
        for values in maps.values():
            values.flags.writeable = False
        return maps


def place_people(count: int, net_size: tuple[int, int], spec: ModelSpec, *, seed: int = 0) -> PlantedPeople:
    """People on a grid over the network's input (height, width). Raises ValueError where it has no room for so many."""
    height, width = net_size
    columns = max(math.ceil(math.sqrt(count * width / height)), 1)
    rows = max(math.ceil(count / columns), 1)
    spacing = min(width / columns, height / rows)
    if spacing < LEAST_ROOM * STRIDE:
        raise ValueError(f"a network's input of {width}x{height} has no room for {count} people; plant fewer")
    random = np.random.default_rng(seed)
    place = np.arange(count)
    grid = np.stack([(place % columns + 0.5) * width / columns, (place // columns + 0.5) * height / rows], axis=1)
    middles = grid + random.uniform(-JITTER, JITTER, grid.shape) * spacing  # (N, 2)
    tall = min(PERSON_PART * min(net_size), CROWDING * spacing)
    box, size = np.array([SLIMNESS * tall, tall]), tall * math.sqrt(SLIMNESS)
    keypoints = middles[:, None] + random.uniform(-0.5, 0.5, (count, spec.keypoint_count, 2)) * box
    initial = keypoints + random.normal(0, MISPLACED * size, keypoints.shape)
    heights = HEAD_AND_BODY[-spec.center_count :]
    centers = middles[:, None] + np.array([[0.0, part * tall] for part in heights])
    centers = centers.clip(MARGIN, np.array([width, height]) - MARGIN)
    keypoints, initial, centers = (points.astype(np.float32) for points in (keypoints, initial, centers))
    return PlantedPeople(keypoints, initial, centers, size, spacing)


def mirror_maps(heatmaps: FloatArray, offsets: FloatArray, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """What a trunk would say of the mirror image: the inverse of what `posesdk.decode.average_flip` undoes."""
    count, partners = spec.keypoint_count, spec.skeleton.flip_indices
    channels = np.concatenate([partners, np.arange(count, len(heatmaps))])
    mirrored = offsets.reshape(-1, count, 2, *offsets.shape[1:])[:, partners, :, :, ::-1].copy()
    mirrored[:, :, 0] *= -1
    return heatmaps[channels, :, ::-1], mirrored.reshape(offsets.shape)


def _draw_heatmaps(people: PlantedPeople, seen: FloatArray, spec: ModelSpec) -> FloatArray:
    """Heatmaps (K+Q, h, w) of the people over what the trunk has seen."""
    count = spec.keypoint_count
    heatmaps = np.minimum(seen, np.float32(BACKGROUND))
    heatmaps[count:] = 0
    keypoint_sigma = float(np.clip(KEYPOINT_SIGMA * people.size / STRIDE, *KEYPOINT_RANGE))
    for person, centers in zip(people.keypoints, people.centers, strict=True):
        np.maximum(heatmaps[:count], _gaussians(person, keypoint_sigma, heatmaps, spec.frame), out=heatmaps[:count])
        spots = _gaussians(centers, _center_sigma(people), heatmaps, spec.frame)
        spots[spots < FAINT] = 0
        spots[:, [0, -1]] = spots[:, :, [0, -1]] = 0  # a tail that is replicated beyond the border would be a peak
        np.maximum(heatmaps[count:], spots, out=heatmaps[count:])
    return heatmaps


def _draw_offsets(people: PlantedPeople, seen: FloatArray, spec: ModelSpec) -> FloatArray:
    """Offsets (2KQ, h, w) that point from the cells around every center to its initial keypoints."""
    offsets = seen.copy()
    of_kind = offsets.reshape(spec.center_count, spec.keypoint_count, 2, *offsets.shape[1:])
    reach = max(math.ceil(2 * _center_sigma(people)), 1)
    for initial, centers in zip(people.initial, people.centers, strict=True):
        targets = _cells(initial, spec.frame)[..., None]  # (K, 2, 1)
        for kind, (x, y) in enumerate(np.floor(centers / STRIDE).astype(int)):
            xs = np.arange(max(x - reach, 0), min(x + reach + 1, offsets.shape[2]))
            ys = np.arange(max(y - reach, 0), min(y + reach + 1, offsets.shape[1]))
            window = of_kind[kind, :, :, ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
            window[:, 0] = (xs - targets[:, 0])[:, None, :]
            window[:, 1] = (ys - targets[:, 1])[:, :, None]
    return offsets


def _center_sigma(people: PlantedPeople) -> float:
    """Cells."""
    sigma = float(np.clip(CENTER_SIGMA * people.size / STRIDE, *CENTER_RANGE))
    return min(sigma, people.spacing * (1 - 2 * JITTER) / STRIDE / APART)


def _gaussians(points: FloatArray, sigma: float, maps: FloatArray, frame: Frame) -> FloatArray:
    """(P, h, w): one around each of the points (P, 2), net px, on maps of that height and width; `sigma` in cells."""
    cells = _cells(points, frame)
    along_x = np.exp(-((np.arange(maps.shape[2]) - cells[:, :1]) ** 2) / (2 * sigma**2))
    along_y = np.exp(-((np.arange(maps.shape[1]) - cells[:, 1:]) ** 2) / (2 * sigma**2))
    gaussians: FloatArray = (PEAK * along_y[:, :, None] * along_x[:, None, :]).astype(np.float32)
    return gaussians


def _cells(points: FloatArray, frame: Frame) -> FloatArray:
    """Net px in cells as the frame's targets count them."""
    cells: FloatArray = (points - np.float32(0 if frame == "published" else CELL_CENTER)) / np.float32(STRIDE)
    return cells


def _for_batch(maps: FloatArray, batch: int) -> FloatArray:
    """Maps of one image, or of it and its mirror image, for a batch; mirror images follow all images."""
    return maps if len(maps) == batch else maps.repeat(batch // len(maps), axis=0)
