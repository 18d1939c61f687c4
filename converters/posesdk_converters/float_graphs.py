"""Which graphs of a model stay float in int8, whatever the target."""

import onnx

from posesdk_converters.target import Conversion, Graph
from posesdk_converters.verification.sensitivity import layers_of

__all__ = ["float_reason"]


def float_reason(conversion: Conversion, graph: Graph) -> str | None:
    """Why a graph stays float, in words for the manifest; None where int8 is to be made of it.

    Networks without convolutions, DAC's, look at a few numbers of each pose: what they say is a place, a score, or
    whose pose it is, as the last layers of the others do, and they cost little beside a trunk.
    """
    if not layers_of(onnx.load(conversion.graphs[graph])):
        return f"{graph} is float: it has no convolutions"
    feeds = conversion.feeds
    inputs = () if feeds is None else feeds.trunk if graph == "trunk" else feeds.adapt
    return None if any(map(len, inputs)) else f"{graph} is float: nobody was found in the calibration images"
