"""RTMDet-nano for people (arXiv 2212.07784), which finds the boxes that MoveNet looks into.

Per cell of strides 8, 16 and 32 the raw outputs are the logit of the class and the distances in px from the cell's
corner to the left, top, right and bottom of the box. Colours and letterbox are those of MMDetection's configuration
rtmdet_nano_320-8xb32_coco-person. Weights: Apache-2.0.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers.boxes import suppress
from peers.finder import Image
from peers.fitting import Fit, fit
from peers.pictures import Colours, open_graph, read_graph

__all__ = ["PersonDetector", "decode_boxes"]

FILE = "rtmdet_nano_person_onnx/rtmdet-nano.onnx"
COLOURS = Colours(mean=(103.53, 116.28, 123.675), scale=(57.375, 57.12, 58.395), rgb=False)
SIDE, GREY = 320, 114
OVERLAP, MOST = 0.6, 100

Floats = NDArray[np.float32]


class PersonDetector:
    """Boxes of people, in three steps that are timed apart."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._graph = open_graph(read_graph(folder / FILE), COLOURS, threads)

    def prepare(self, image: Image) -> tuple[Image, Fit]:
        """The letterboxed image, BGR, in the top left corner."""
        return fit(image, (SIDE, SIDE), border=GREY, centered=False)

    def run(self, canvas: Image) -> list[Floats]:
        """The raw maps (h, w, 5), those of the smallest stride first."""
        maps = self._graph.run({self._graph.inputs[0].name: canvas[None]}).values()
        return sorted((values[0] for values in maps), key=len, reverse=True)

    def decode(self, maps: Sequence[Floats], placed: Fit, floor: float) -> tuple[Floats, Floats]:
        """Boxes (N, 4) x1, y1, x2, y2 in pixels of the image, and scores (N,)."""
        boxes, scores = decode_boxes(maps, floor)
        return placed.to_image(boxes.reshape(-1, 2)).reshape(-1, 4), scores


def decode_boxes(maps: Sequence[Floats], floor: float) -> tuple[Floats, Floats]:
    """Boxes (N, 4) x1, y1, x2, y2 in px of the input, and scores (N,), of maps (h, w, 5) of an input of SIDE."""
    found: list[Floats] = []
    certain: list[Floats] = []
    least = np.log(floor / (1 - floor))
    for values in maps:
        stride = SIDE // len(values)
        rows, columns = np.nonzero(values[..., 0] > least)
        cells = values[rows, columns]  # (M, 5)
        corners = np.stack([columns, rows], axis=1).astype(np.float32) * stride
        found.append(np.concatenate([corners - cells[:, 1:3], corners + cells[:, 3:5]], axis=1))
        certain.append((1 / (1 + np.exp(-cells[:, 0]))).astype(np.float32))
    boxes, scores = np.concatenate(found), np.concatenate(certain)
    kept = suppress(boxes, scores, overlap=OVERLAP, most=MOST)
    return boxes[kept], scores[kept]
