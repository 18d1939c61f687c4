"""What every layer of a graph multiplies, and how long a runtime says that it takes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.onnxruntime import import_onnxruntime
from posesdk_runtimes.openvino import shared_core

__all__ = ["Layer", "multiply_adds", "onnxruntime_layers", "openvino_layers"]

RUNS = 100
READER_SUFFIX = "/WithoutBiases"
"""What OpenVINO's reader of ONNX appends to the name of a convolution whose bias it makes an addition."""
FUSED_SUFFIX = "_token_"
"""What ONNX Runtime puts between the name of a layer that it has merged with others and a number."""


@dataclass(frozen=True)
class Layer:
    """One executed layer: its name in the graph, the runtime's kernel, the least time in s, what it multiplies."""

    name: str
    kernel: str
    seconds: float
    multiply_adds: int


def multiply_adds(path: Path, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-adds of every convolution of a trunk (.xml or .onnx), by name, for one image of `size` rows, columns."""
    model = shared_core().read_model(path)
    model.reshape([1, *size, 3])
    return {
        _plain(node.get_friendly_name()): math.prod(node.get_output_shape(0)) * math.prod(node.get_input_shape(1)[1:])
        for node in model.get_ops()
        if node.get_type_name() == "Convolution"
    }


def openvino_layers(
    path: Path, image: NDArray[np.uint8], counts: Mapping[str, int], *, precision: str, threads: int
) -> list[Layer]:
    """The layers of a trunk on OpenVINO, the slowest first, with the settings of the SDK."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    core = shared_core()
    model = core.read_model(path)
    model.reshape(image.shape)  # as the SDK's runtime does with a size that comes often
    compiled = core.compile_model(model, "CPU", {**settings, "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    found: dict[str, tuple[str, float]] = {}
    for _ in range(RUNS):
        request.infer([image], share_inputs=True)
        for entry in request.get_profiling_info():
            if entry.status != entry.Status.EXECUTED:
                continue
            _keep(found, entry.node_name, f"{entry.node_type} {entry.exec_type}", entry.real_time.total_seconds())
    return _layers(found, _by_executed(compiled, model, counts))


def onnxruntime_layers(
    path: Path, image: NDArray[np.uint8], counts: Mapping[str, int], *, threads: int, scratch: Path
) -> list[Layer]:
    """The same on ONNX Runtime, whose profile is written below the folder `scratch`."""
    library = import_onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / path.stem)
    session = library.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    for _ in range(RUNS):
        session.run(None, {"image": image})
    found: dict[str, tuple[str, float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            _keep(found, name, event["args"]["op_name"], event["dur"] / 1e6)
    return _layers(found, _by_output(path, counts))


def _by_executed(compiled: Any, model: Any, counts: Mapping[str, int]) -> dict[str, int]:
    """The same counts also by the names of executed layers that took in, and are called by, what scales them."""
    scaled = dict(counts)
    for node in model.get_ordered_ops():
        name = _plain(node.get_friendly_name())
        for reader in (one.get_node() for one in node.output(0).get_target_inputs() if name in scaled):
            if reader.get_type_name() in ("Add", "Multiply"):
                scaled.setdefault(reader.get_friendly_name(), scaled[name])
    known = dict(counts)
    for node in compiled.get_runtime_model().get_ops():
        facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        origins = facts["originalLayersNames"].split(",")
        if facts["layerType"] == "Convolution":
            known.setdefault(_plain(node.get_friendly_name()), max(scaled.get(name, 0) for name in origins))
    return known


def _by_output(path: Path, counts: Mapping[str, int]) -> dict[str, int]:
    """The same counts also by the names of outputs: ONNX Runtime calls a layer of its own format by its output."""
    import onnx

    graph = onnx.load(path).graph
    readers = {name: node for node in graph.node if node.op_type in ("Relu", "Sigmoid", "Mul") for name in node.input}
    known = dict(counts)
    for node in graph.node:
        if node.name in counts:
            followers = [node, *(readers[name] for name in node.output if name in readers)]
            known |= {output: counts[node.name] for follower in followers for output in follower.output}
    return known


def _keep(found: dict[str, tuple[str, float]], name: str, kernel: str, seconds: float) -> None:
    found[name] = (kernel, min(seconds, found.get(name, (kernel, math.inf))[1]))


def _layers(found: Mapping[str, tuple[str, float]], counts: Mapping[str, int]) -> list[Layer]:
    layers = (Layer(name, kernel, seconds, counts.get(_plain(name), 0)) for name, (kernel, seconds) in found.items())
    return sorted(layers, key=lambda layer: -layer.seconds)


def _plain(name: str) -> str:
    return name.split(FUSED_SUFFIX)[0].removesuffix(READER_SUFFIX).removesuffix("_nchwc")
