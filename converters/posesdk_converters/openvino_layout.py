"""What makes a trunk quicker and its int8 form better on OpenVINO, without changing what it computes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["fold_output_scales", "pack_maps"]

MOST_COPIED = 64
"""Channels up to which OpenVINO 2026.4 changes the layout of a map value by value."""
PLANES = ("heatmaps", "offsets")
"""Maps with a plane a channel, of every method."""
ROWS = "embedding"
"""Map with the channels innermost that is as large as these: LOGO-CAP's. DAC's levels stay apart: they have the inner
layout already, and to pack the largest one, which the heads read, would be a copy more."""


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


def pack_maps(model: Any) -> None:
    """Lets the maps of a trunk leave OpenVINO's inner layout together.

    OpenVINO computes with the channels innermost and hands maps out with a plane a channel. Maps of 16 to 64 channels
    are copied value by value, and where a plane is a multiple of 4096 bytes, as with an image of 256x320, the planes
    take each other's place in the cache: the offsets then take as long as all the convolutions of a small int8 trunk.
    More channels go through another copy. Does nothing for other graphs, and for trunks with few channels.
    """
    results = {name: result for result in model.get_results() for name in (*PLANES, ROWS) if name in _names(result)}
    if not results.keys() >= set(PLANES):
        return
    ordered = [results[name] for name in (*PLANES, ROWS) if name in results]
    if all(result.input_value(0).get_partial_shape().is_static for result in ordered):
        _turn_maps(ordered[: len(PLANES)])
    elif all(result.input_value(0).get_node().get_type_name() == "Transpose" for result in ordered[len(PLANES) :]):
        _pack(ordered)
    model.validate_nodes_and_infer_types()


def _pack(results: Sequence[Any]) -> None:
    """Heatmaps, offsets and, if there is one, the embedding as one map until they are out of the inner layout."""
    from openvino import opset13

    sources = [result.input_value(0) for result in results]
    late = sources[0].get_node().get_type_name() == "Sigmoid"
    maps = [sources[0].get_node().input_value(0) if late else sources[0], sources[1]]
    maps += [source.get_node().input_value(0) for source in sources[2:]]
    channels = [value.get_partial_shape()[1].get_length() for value in maps]
    if sum(channels) <= MOST_COPIED:
        return
    packed = opset13.concat(maps, 1)  # (B, C, h, w)
    batch, area = _sizes(packed)
    flat = opset13.reshape(packed, _integers(0, sum(channels), -1), True)
    parts = opset13.variadic_split(flat, _integers(1), _integers(*channels)).outputs()  # (B, C, h w) each
    planes = [opset13.sigmoid(parts[0]).output(0) if late else parts[0], parts[1]]
    shapes = [opset13.concat([batch, _integers(count), area], 0) for count in channels[:2]]
    new = [opset13.reshape(value, shape, False) for value, shape in zip(planes, shapes, strict=True)]
    for rows, depth in zip(parts[2:], channels[2:], strict=True):
        turned = opset13.transpose(rows, _integers(0, 2, 1))  # (B, h w, d)
        new.append(opset13.reshape(turned, opset13.concat([batch, area, _integers(depth)], 0), False))
    for result, source, value in zip(results, sources, new, strict=True):
        _replace(source, value.output(0), [result.input(0)])


def _turn_maps(results: Iterable[Any]) -> None:
    """The same for maps of a fixed size: OpenVINO then sees that the first of two transpositions moves nothing."""
    from openvino import opset13

    for result in results:
        source = result.input_value(0)  # (B, C, h, w)
        shape = list(source.get_partial_shape().to_shape())
        rows = opset13.reshape(
            opset13.transpose(source, _integers(0, 2, 3, 1)), _integers(shape[0], shape[2] * shape[3], shape[1]), False
        )
        planes = opset13.transpose(rows, _integers(0, 2, 1))  # (B, C, h w)
        _replace(source, opset13.reshape(planes, _integers(*shape), False).output(0), [result.input(0)])


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


def _sizes(value: Any) -> tuple[Any, Any]:
    """(B,) and (h, w) of a (B, C, h, w) tensor, as tensors."""
    from openvino import opset13

    shape = opset13.shape_of(value)
    return opset13.gather(shape, _integers(0), _integers(0)), opset13.gather(shape, _integers(2, 3), _integers(0))
