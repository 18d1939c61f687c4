"""MoveNet SinglePose Lightning INT8 on the crop of each person that RTMDet-nano finds: the time grows with the people.

MoveNet's model card: a square RGB picture of 192 px, out of it y, x (as parts of the picture) and a score per keypoint.
It knows one person; crops are squares around boxes with a margin, as top-down methods make them. Weights: Apache-2.0.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from peers.finder import Found, Image, Laps, nobody
from peers.fitting import Fit
from peers.rtmdet import PersonDetector
from posesdk_runtimes.registry import open_runtime

__all__ = ["MoveNet", "crop_of"]

FILE = "movenet_singlepose_lightning_tflite/lite-model_movenet_singlepose_lightning_tflite_int8_4.tflite"
SIDE = 192
MARGIN = 1.25
"""Side of a crop in longer sides of its box."""
USUAL, EVERYONE = 0.3, 0.05
"""Least score of a box: that of MMPose's demonstrations, and that of MMDetection's evaluation."""
MOST = 30

Floats = NDArray[np.float32]
Prepared = tuple[Image, Image, Fit]


class MoveNet:
    """The detector, then the pose network once for each person."""

    title = "RTMDet-nano fp32 + MoveNet Lightning int8"

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._detector = PersonDetector(folder, threads=threads)
        self._graph = open_runtime(folder / FILE, runtime="tflite", threads=threads)

    def prepare(self, image: Image) -> tuple[Prepared, Laps]:
        """The image, and its letterbox for the detector."""
        laps = Laps()
        canvas, placed = self._detector.prepare(image)
        laps.lap("preprocess")
        return (image, canvas, placed), laps

    def finish(self, prepared: Prepared, laps: Laps, *, everyone: bool) -> Found:
        """The people in the image."""
        image, canvas, placed = prepared
        maps = self._detector.run(canvas)
        laps.lap("network")
        boxes, scores = self._detector.decode(maps, placed, EVERYONE if everyone else USUAL)
        laps.lap("decode")
        return self._look_into(image, boxes[:MOST], scores[:MOST], laps)

    def find_in(self, image: Image, boxes: Floats) -> Found:
        """As if the detector, which runs, had found these boxes (N, 4) x1, y1, x2, y2."""
        (_, canvas, placed), laps = self.prepare(image)
        maps = self._detector.run(canvas)
        laps.lap("network")
        self._detector.decode(maps, placed, USUAL)
        laps.lap("decode")
        return self._look_into(image, boxes, np.ones(len(boxes), np.float32), laps)

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
