"""What makes a trunk quicker and its int8 form better on OpenVINO, without changing what it computes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fold_output_scales", "hand_out_maps", "spread_normalisation"]

PLANES, ROWS = "heatmaps", "offsets"
"""Maps of every method: the one is worked on channel by channel, of the other all channels are read at a few places."""
SPREAD = 16
"""Pixels that are normalised together. Their number in a picture is a multiple, since its sides are whole strides."""
STEPS = ("pixels", "centered", "normalised", "rows", "planes")
"""What becomes of a picture."""
TO_PLANES, TO_ROWS = (0, 3, 1, 2), (0, 2, 3, 1)
AFFINE = ("Add", "Subtract", "Multiply", "Divide", "BatchNormInference")

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Scale and shift of each channel."""


def fold_output_scales(model: Any) -> None:
    """Multiplies the number that a convolution's output is multiplied by into its weights and bias.

    As an operator of its own it would have its input, the offsets, quantized to 1/255 of their range.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        added = _source(node, "Multiply")
        layer = None if added is None else _source(added, "Add")
        if added is None or layer is None or _source(layer, "Convolution") is None:
            continue
        scale = _constant(node)
        if scale is None or scale.size != 1 or _readers(added) != 1 or _readers(layer) != 1:
            continue
        for part in (layer, added):
            old = part.input_value(1).get_node()
            folded = opset13.constant(np.asarray(old.data * scale.reshape(()), old.data.dtype))
            folded.set_friendly_name(old.get_friendly_name())
            part.input(1).replace_source_output(folded.output(0))
        _replace(node.output(0), added.output(0), node.output(0).get_target_inputs())
    model.validate_nodes_and_infer_types()


def spread_normalisation(model: Any) -> list[str]:
    """Lets a picture be normalised before its channels become planes, over many pixels at a time.

    The names of the operators that do it, which int8 has to leave float, as the picture is rounded behind them.

    OpenVINO works on three channels in a row pixel by pixel, and on planes only after it has made them, to undo that
    for the first convolution: with that convolution's own rounding to int8 a twelfth of a small int8 trunk. Does
    nothing for other graphs.
    """
    from openvino import opset13

    names = []
    for start in model.get_parameters():
        picture = _reader(start, "Convert")
        planes = None if picture is None else _reader(picture, "Transpose")
        if planes is None or tuple(planes.input_value(1).get_node().data) != TO_PLANES:
            continue
        last, (scale, shift) = _normalisation(planes)
        if last is planes:
            continue
        pixels = opset13.reshape(picture, _integers(0, -1, 3 * SPREAD), True)
        centered = opset13.subtract(pixels, _spread(-shift / scale))  # in this order float16 numbers lose least
        value = opset13.divide(centered, _spread(1 / scale))
        back = opset13.reshape(value, opset13.shape_of(start), False)
        turned = opset13.transpose(back, _integers(*TO_PLANES))
        # Names of which what NNCF adds makes names of its own: not those that OpenVINO counts up.
        for node, name in zip((pixels, centered, value, back, turned), STEPS, strict=True):
            node.set_friendly_name(f"{start.get_friendly_name()}/{name}")
        names += [centered.get_friendly_name(), value.get_friendly_name()]
        for reader in last.output(0).get_target_inputs():
            reader.replace_source_output(turned.output(0))
    model.validate_nodes_and_infer_types()
    return names


def hand_out_maps(model: Any) -> None:
    """Lets the maps of a trunk leave OpenVINO's inner layout, which has the channels innermost, without detours.

    What leaves it by itself is copied value by value: where a plane is a multiple of 4096 bytes, as with an image of
    256x320, the planes take each other's place in the cache, and the offsets take as long as all the convolutions of a
    small int8 trunk. Heatmaps are turned as a matrix. Offsets stay as they are, and say so by their layout: the
    runtime shows them as planes all the same. Does nothing for other graphs.
    """
    from openvino import Layout, opset13

    results = {name: result for result in model.get_results() for name in (PLANES, ROWS) if name in _names(result)}
    if len(results) < 2:
        return
    for name, result in results.items():
        source = result.input_value(0)  # (B, C, h, w)
        turned = opset13.transpose(source, _integers(*TO_ROWS))
        if name == PLANES:
            channels = source.get_partial_shape()[1].get_length()
            matrix = opset13.reshape(turned, _integers(0, -1, channels), True)  # (B, h w, C)
            planes = opset13.transpose(matrix, _integers(0, 2, 1))
            turned = opset13.reshape(planes, opset13.shape_of(source), False)
        else:
            result.set_layout(Layout("NHWC"))
        _replace(source, turned.output(0), [result.input(0)])
    model.validate_nodes_and_infer_types()


def _normalisation(planes: Any) -> tuple[Any, Affine]:
    """The last of the operators that scale and shift the 3 planes of a picture, and what all do together."""
    last, scale, shift = planes, np.ones(3), np.zeros(3)
    while (reader := _reader(last, *AFFINE)) is not None:
        numbers = [source.get_node() for source in reader.input_values()[1:]]
        if any(number.get_type_name() != "Constant" or number.data.size not in (1, 3) for number in numbers):
            break
        factor, term = _affine(reader, [number.data.astype(np.float64).reshape(-1) for number in numbers])
        last, scale, shift = reader, scale * factor, shift * factor + term
    return last, (scale, shift)


def _affine(node: Any, numbers: Sequence[NDArray[np.float64]]) -> Affine:
    """What an operator multiplies by, and then adds."""
    one, none = np.ones(3), np.zeros(3)
    match node.get_type_name():
        case "Add":
            return one, none + numbers[0]
        case "Subtract":
            return one, none - numbers[0]
        case "Multiply":
            return one * numbers[0], none
        case "Divide":
            return one / numbers[0], none
    gamma, beta, mean, variance = numbers  # of a BatchNormInference
    factor = gamma / np.sqrt(variance + node.get_attributes()["epsilon"])
    return factor, beta - mean * factor


def _spread(values: NDArray[np.float64]) -> Any:
    """Numbers of the channels for SPREAD pixels, one after the other."""
    from openvino import opset13

    return opset13.constant(np.tile(values, SPREAD).astype(np.float32)[None, None])  # (1, 1, 48)


def _reader(node: Any, *kinds: str) -> Any:
    """The operator of one of these kinds that alone reads a node's values, else None."""
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() in kinds else None


def _replace(old: Any, new: Any, readers: Iterable[Any]) -> None:
    """Gives readers of one output, its tensor's names and its node's name to another one."""
    for reader in list(readers):
        reader.replace_source_output(new)
    names, name = old.get_names(), old.get_node().get_friendly_name()
    old.set_names(set())
    new.set_names(names)
    old.get_node().set_friendly_name(f"{name}/replaced")
    new.get_node().set_friendly_name(name)


def _source(node: Any, kind: str) -> Any:
    """The first input of an operator of this kind whose second input is a constant, else None."""
    return node.input_value(0).get_node() if node.get_type_name() == kind and _constant(node) is not None else None


def _constant(node: Any) -> Any:
    second = node.input_value(1).get_node()
    return second.data if second.get_type_name() == "Constant" else None


def _readers(node: Any) -> int:
    return len(node.output(0).get_target_inputs())


def _names(result: Any) -> set[str]:
    names: set[str] = result.input_value(0).get_names()
    return names


def _integers(*values: int) -> Any:
    from openvino import opset13

    return opset13.constant(np.array(values, np.int64))
