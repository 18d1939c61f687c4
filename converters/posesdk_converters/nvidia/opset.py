"""Moving a graph between ONNX operator sets, where nothing that it uses changes its meaning."""

import onnx
from onnx import helper

from posesdk_converters.onnx import OPSET
from posesdk_runtimes.errors import GateError

__all__ = ["with_opset"]

_DEFAULTS: dict[str, dict[str, object]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "Split": {},
}
"""Attributes that came with opset 18, with the values at which the operator does what it did before."""


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of a graph of opset OPSET in another operator set, with the oldest file version that holds it.

    Down to 17, which is the newest that TensorRT 8.5 and 8.6 read, and up, where later versions of operators only add.
    Raises GateError for an operator that has no equal there.
    """
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    if opset < OPSET:
        for node in moved.graph.node:
            _lower(node, opset)
    del moved.opset_import[:]
    moved.opset_import.append(helper.make_opsetid("", opset))
    moved.ir_version = helper.find_min_ir_version_for(list(moved.opset_import))
    return moved


def _lower(node: onnx.NodeProto, opset: int) -> None:
    if onnx.defs.get_schema(node.op_type, OPSET).since_version <= opset:
        return
    defaults = _DEFAULTS.get(node.op_type, {})
    kept = []
    for attribute in node.attribute:
        if attribute.name not in defaults:
            kept.append(attribute)
        elif helper.get_attribute_value(attribute) != defaults[attribute.name]:
            raise GateError(f"opset {opset} has no {node.op_type} with {attribute.name}, which {node.name} asks for")
    known = onnx.defs.get_schema(node.op_type, opset).attributes
    unknown = [attribute.name for attribute in kept if attribute.name not in known]
    if node.op_type not in _DEFAULTS or unknown:
        raise GateError(f"opset {opset} has another {node.op_type} than {OPSET}, so {node.name} cannot be moved there")
    del node.attribute[:]
    node.attribute.extend(kept)
