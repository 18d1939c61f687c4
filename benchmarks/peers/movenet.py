"""MoveNet SinglePose Lightning INT8 on the crop of each person that RTMDet-nano finds: the time grows with the people.

MoveNet's model card: a square RGB picture of 192 px, out of it y, x (as parts of the picture) and a score per keypoint.
It knows one person; crops are the squares around boxes. Weights: Apache-2.0.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from peers.finder import Found, Image, Laps, nobody, stream_in_threads
from peers.rtmdet import PersonDetector
from posesdk.streaming import ResultStream
from posesdk_runtimes.registry import open_runtime

__all__ = ["MoveNet", "crop_of"]

FILE = "movenet_singlepose_lightning_tflite/lite-model_movenet_singlepose_lightning_tflite_int8_4.tflite"
SIDE = 192
MARGIN = 1.0
"""Side of a crop in longer sides of its box: of 0.8 to 1.6 the one with the best AP on 150 photos of coco_train."""
USUAL, EVERYONE = 0.3, 0.05
"""Least score of a box: that of MMPose's demonstrations, and that of MMDetection's evaluation."""
MOST = 30

Floats = NDArray[np.float32]


class MoveNet:
    """The detector, then the pose network once for each person."""

    title = "RTMDet-nano fp32 + MoveNet Lightning int8"

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._threads = threads
        self._detector = PersonDetector(folder, threads=threads)
        self._graph = open_runtime(folder / FILE, runtime="tflite", threads=threads)

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        laps = Laps()
        boxes, scores = self._detect(image, EVERYONE if everyone else USUAL, laps)
        return self._look_into(image, boxes[:MOST], scores[:MOST], laps)

    def find_in(self, image: Image, boxes: Floats) -> Found:
        """As if the detector, which runs, had found these boxes (N, 4) x1, y1, x2, y2."""
        laps = Laps()
        self._detect(image, USUAL, laps)
        return self._look_into(image, boxes, np.ones(len(boxes), np.float32), laps)

    def stream(self, video: Path) -> ResultStream[Any]:
        """The people in every frame of a video."""
        return stream_in_threads(self, video, self._threads)

    def _detect(self, image: Image, floor: float, laps: Laps) -> tuple[Floats, Floats]:
        """Boxes (N, 4) and scores (N,)."""
        canvas, placed = self._detector.prepare(image)
        laps.lap("preprocess")
        maps = self._detector.run(canvas)
        laps.lap("network")
        found = self._detector.decode(maps, placed, floor)
        laps.lap("decode")
        return found

    def _look_into(self, image: Image, boxes: Floats, scores: Floats, laps: Laps) -> Found:
        if not len(boxes):
            return nobody(laps)
        persons = []
        for box in boxes:
            matrix = crop_of(box)
            crop = cv2.cvtColor(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
            laps.lap("preprocess")
            (output,) = self._graph.run({self._graph.inputs[0].name: crop[None]}).values()
            laps.lap("network")
            person = output[0, 0][:, [1, 0, 2]]  # y, x, score become x, y, score
            person[:, :2] = (person[:, :2] * SIDE - matrix[:, 2]) / matrix[0, 0]
            persons.append(person)
            laps.lap("decode")
        keypoints = np.stack(persons)
        return Found(keypoints, scores * keypoints[..., 2].mean(axis=1), laps.spent)


def crop_of(box: Floats) -> NDArray[np.float64]:
    """The matrix (2, 3) from pixels of the image to the network's input, for a box x1, y1, x2, y2."""
    middle = (box[:2] + box[2:]) / 2
    scale = SIDE / (MARGIN * max(float((box[2:] - box[:2]).max()), 1.0))
    return np.array([[scale, 0, SIDE / 2 - scale * middle[0]], [0, scale, SIDE / 2 - scale * middle[1]]], np.float64)
