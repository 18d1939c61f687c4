"""YOLOv8n-pose INT8 for OpenVINO: boxes and keypoints of every cell in one pass, then non-maximum suppression.

Letterbox, colours and thresholds are those of the file's own `model_info` and of Ultralytics' documentation of
`predict` (confidence 0.25) and `val` (0.001). Weights: AGPL-3.0, for comparison only.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.boxes import suppress
from peers.finder import Found, Image, Laps, stream_in_threads
from peers.fitting import brought_back, fit
from peers.pictures import Colours, open_graph, read_graph
from posesdk.streaming import ResultStream
from posesdk_runtimes.base import Runtime
from posesdk_runtimes.openvino import import_openvino

__all__ = ["Yolo", "decode_yolo", "resize_yolo"]

FILE = "yolov8n_pose_int8_openvino/yolov8n-pose.xml"
COLOURS = Colours(mean=(0.0, 0.0, 0.0), scale=(255.0, 255.0, 255.0), rgb=True)
GREY = 114
STRIDES = (8, 16, 32)
PUBLISHED_SIDE = 640
USUAL, EVERYONE = 0.25, 0.001
"""Least score of a person: that of `predict`, and that of `val`."""
OVERLAP, MOST = 0.7, 300


class Yolo:
    """The network at an input of `side` x `side`; with `rectangle` without the border that a picture leaves empty."""

    def __init__(self, folder: Path, side: int, *, threads: int, rectangle: bool = False) -> None:
        self.title = f"YOLOv8n-pose int8, {side}" + (" without border" if rectangle else "")
        self._path, self._threads, self._side, self._rectangle = folder / FILE, threads, side, rectangle
        self._graphs: dict[tuple[int, int], Runtime] = {}
        self._open((side, side))

    def poses(self, image: Image, *, everyone: bool = False) -> Found:
        """The people in an image."""
        laps = Laps()
        canvas, placed = fit(image, self._size(image), border=GREY, centered=True)
        laps.lap("preprocess")
        graph = self._open((canvas.shape[0], canvas.shape[1]))
        (output,) = graph.run({graph.inputs[0].name: canvas[None]}).values()
        laps.lap("network")
        keypoints, scores = decode_yolo(output[0], EVERYONE if everyone else USUAL)
        return brought_back(keypoints, scores, placed, laps)

    def stream(self, video: Path) -> ResultStream[Any]:
        """The people in every frame of a video."""
        return stream_in_threads(self, video, self._threads)

    def _size(self, image: Image) -> tuple[int, int]:
        """Height and width of the input: whole strides."""
        if not self._rectangle:
            return self._side, self._side
        scale, stride = self._side / max(image.shape[:2]), STRIDES[-1]
        height, width = (-(-round(side * scale) // stride) * stride for side in image.shape[:2])
        return height, width

    def _open(self, size: tuple[int, int]) -> Runtime:
        if size not in self._graphs:
            model = resize_yolo(read_graph(self._path), size)
            self._graphs[size] = open_graph(model, COLOURS, self._threads)
        return self._graphs[size]


def resize_yolo(model: Any, size: tuple[int, int]) -> Any:
    """The published graph for another input (height, width), at most as large as its own and in multiples of 32.

    The export has its cells written into it: their places and strides, a column for each of the 8400 cells, and two
    shapes. A smaller input has the first rows and columns of every level, so the other cells' columns are left out.
    """
    openvino = import_openvino()
    constant = openvino.opset13.constant
    cells = sum((PUBLISHED_SIDE // stride) ** 2 for stride in STRIDES)
    kept = kept_cells(size)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        shape, (user, *_) = list(node.get_output_shape(0)), node.output(0).get_target_inputs()
        if shape and shape[-1] == cells:
            node.output(0).replace(constant(np.ascontiguousarray(node.data[..., kept])).output(0))
        elif user.get_node().get_type_name() == "Reshape" and cells in node.data.ravel():
            node.output(0).replace(constant(np.where(node.data == cells, -1, node.data)).output(0))
    # `Model.reshape` would first look at the graph as it was, in which the columns left no longer fit.
    model.get_parameters()[0].set_partial_shape(openvino.PartialShape([1, 3, *size]))
    model.validate_nodes_and_infer_types()
    return model


def kept_cells(size: tuple[int, int]) -> NDArray[np.intp]:
    """Which of the published cells, level by level and row by row, a smaller input (height, width) has."""
    parts, start = [], 0
    for stride in STRIDES:
        side = PUBLISHED_SIDE // stride
        numbers = np.arange(start, start + side * side).reshape(side, side)
        parts.append(numbers[: size[0] // stride, : size[1] // stride].ravel())
        start += side * side
    return np.concatenate(parts)


def decode_yolo(output: NDArray[np.float32], floor: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints (N, 17, 3) in px of the input, and scores (N,), of an output (56, cells).

    Its rows are the box's middle and size, the score, and x, y and score of each keypoint.
    """
    columns = output[:, output[4] > floor].T  # (M, 56)
    middles, halves, scores = columns[:, :2], columns[:, 2:4] / 2, columns[:, 4]
    kept = suppress(np.concatenate([middles - halves, middles + halves], axis=1), scores, overlap=OVERLAP, most=MOST)
    return columns[kept, 5:].reshape(-1, 17, 3), scores[kept]
