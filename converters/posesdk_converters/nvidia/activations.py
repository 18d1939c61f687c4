"""What the tensors inside an ONNX graph hold while it runs on given inputs."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from posesdk_runtimes.base import Tensor
from posesdk_runtimes.onnxruntime import import_onnxruntime

__all__ = ["BINS", "magnitude_counts", "magnitudes", "observe"]

BINS = 2048

_FATAL = 4
"""Severity from which ONNX Runtime writes to stderr."""


def observe(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
    """The named tensors for each input of a float graph with one input, one input at a time."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    known = {value.name for value in opened.graph.output}
    opened.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted if name not in known)
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(opened.SerializeToString(), settings, ["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    for tensor in inputs:
        yield dict(zip(wanted, session.run(wanted, {entry: tensor}), strict=True))


def magnitudes(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, float]:
    """The largest magnitude of each tensor over all inputs; 0 where it was empty."""
    largest = dict.fromkeys(names, 0.0)
    for found in observe(model, names, inputs):
        for name, tensor in found.items():
            largest[name] = max(largest[name], float(np.abs(tensor).max(initial=0)))
    return largest


def magnitude_counts(
    model: onnx.ModelProto, largest: Mapping[str, float], inputs: Sequence[Tensor]
) -> dict[str, NDArray[np.int64]]:
    """How often each tensor's magnitude lies in each of BINS equal steps up to its `largest`, which is above 0."""
    counts = {name: np.zeros(BINS, np.int64) for name in largest}
    for found in observe(model, tuple(largest), inputs):
        for name, tensor in found.items():
            steps = (np.abs(tensor).ravel() * (BINS / largest[name])).astype(np.int64)
            counts[name] += np.bincount(steps.clip(max=BINS - 1), minlength=BINS)
    return counts
