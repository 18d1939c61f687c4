"""PoseNet, MobileNetV1 0.75 at 481 x 641, quantized, for TFLite: heatmaps and offsets, decoded by `peers.personlab`.

Input: the picture in RGB, (value - 128) / 128 inside the graph. Weights: Apache-2.0.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from peers.finder import Found, Image, Laps, stream_in_threads
from peers.fitting import brought_back, fit
from peers.personlab import decode_people
from posesdk.streaming import ResultStream
from posesdk_runtimes.registry import open_runtime

__all__ = ["PoseNet"]

FILE = "posenet_mobilenet_v1_075_tflite/posenet_mobilenet_v1_075_481_641_quant.tflite"
SIZE = (481, 641)
USUAL, EVERYONE = 0.5, 0.02
"""Least score of a root, of a keypoint's mean and of a person: the published default, and what changes AP no more."""


class PoseNet:
    """The network and PersonLab's decoder."""

    title = "PoseNet MobileNetV1-0.75 int8, 481x641"

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._threads = threads
        self._graph = open_runtime(folder / FILE, runtime="tflite", threads=threads)

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        laps = Laps()
        canvas, placed = fit(image, SIZE, border=0, centered=False)
        pixels = np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB), np.uint8)
        laps.lap("preprocess")
        maps = self._graph.run({self._graph.inputs[0].name: pixels[None]})
        laps.lap("network")
        heatmaps, short, mid = (maps[f"float_{name}"][0] for name in ("heatmaps", "short_offsets", "mid_offsets"))
        keypoints, scores = decode_people(heatmaps, short, mid, EVERYONE if everyone else USUAL)
        return brought_back(keypoints, scores, placed, laps)

    def stream(self, video: Path) -> ResultStream[Any]:
        """The people in every frame of a video."""
        return stream_in_threads(self, video, self._threads)
