"""What becomes of a graph of matrix products in int8: DAC's pose networks, which have no convolutions.

Ranges from calibration would be those of features, heatmaps and places together. Where a backend rounds each row of
what a product reads by the row's own range, as it is computed, the weights become 8 bit and the rest stays float: a
quarter of the bytes, and no pose's result depends on the others. Elsewhere the graph stays float.
"""

from pathlib import Path

import onnx

from posesdk_converters.target import Conversion, Graph
from posesdk_converters.verification.sensitivity import layers_of

__all__ = ["float_reason", "has_convolutions"]


def has_convolutions(path: Path) -> bool:
    """Whether an ONNX file has layers that int8 is calibrated for."""
    return bool(layers_of(onnx.load(path)))


def float_reason(conversion: Conversion, graph: Graph) -> str | None:
    """Why calibrated int8 cannot be made of a graph, in words for the manifest; None where it can."""
    if not has_convolutions(conversion.graphs[graph]):
        return f"{graph} is float: it has no convolutions"
    feeds = conversion.feeds
    inputs = () if feeds is None else feeds.trunk if graph == "trunk" else feeds.adapt
    return None if any(map(len, inputs)) else f"{graph} is float: nobody was found in the calibration images"
