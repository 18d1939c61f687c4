"""A bundle as the source of a conversion: its portable graphs hold the weights of the model that they were made from.

The exporter folds batch norms into the convolutions before them. Here they become batch norms that add the folded bias
and change nothing else, so that the model computes what the graphs do. Linear layers lose their names where the
exporter turns their weights over; they are known by the order in which they are run, which is that of the model.
"""

import os
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from posesdk.bundle import Bundle, open_bundle
from posesdk.methods import method_of
from posesdk_converters.manifest import TRAINING_DATA_KEY, WEIGHTS_LICENCE_KEY
from posesdk_converters.onnx import compare_adapt, compare_trunk
from posesdk_converters.target import target_names
from posesdk_converters.verification.record import TOOLS
from posesdk_runtimes.errors import BundleError, GateError
from posesdk_training.checkpoint import Checkpoint
from posesdk_training.models.adaptation import AttentiveNorm
from posesdk_training.models.build import PoseModel, build_model
from posesdk_training.models.logocap import LogoCap

__all__ = ["import_bundle"]

Weights = Mapping[str, Tensor]


def import_bundle(path: str | os.PathLike[str]) -> Checkpoint:
    """The model of a bundle, with the weights of its portable graphs.

    Raises BundleError where the graphs are not those of the model in the manifest, or were made by another exporter.
    """
    bundle = open_bundle(path)
    portable = next((v for v in bundle.manifest.variants if v.trunk == "portable/trunk.onnx"), None)
    if portable is None:
        raise BundleError(f"bundle {path} has no portable graphs to convert; convert its checkpoint")
    model = build_model(bundle.spec).eval()
    _fill(model, "backbone and heads", bundle, portable.trunk, prefix="model.")
    if portable.adapt is not None and method_of(bundle.spec).needs_adapt(bundle.spec):
        if isinstance(model, LogoCap):
            _fill(model.joints_mlp, "adaptation", bundle, portable.adapt, prefix="joints_mlp.")
        else:
            _fill(model.pose_nets, "pose networks", bundle, portable.adapt, prefix="pose_nets.")
    try:
        compare_trunk(model, bundle.local_path(portable.trunk), input_size=portable.input_size)
        if portable.adapt is not None:
            compare_adapt(model, bundle.local_path(portable.adapt))
    except GateError as error:
        raise BundleError(
            f"bundle {path}: its weights cannot be read back ({error}); convert its checkpoint"
        ) from error
    manifest = bundle.manifest
    notes = {key: value for key, value in manifest.provenance.items() if not _is_of_conversion(key)}
    notes[WEIGHTS_LICENCE_KEY] = manifest.licence.weights
    notes[TRAINING_DATA_KEY] = "; ".join(manifest.licence.training_data)
    return Checkpoint(bundle.spec, {key: value.clone() for key, value in model.state_dict().items()}, notes)


def _is_of_conversion(note: str) -> bool:
    """Whether a note tells of the conversion that made the bundle: images, tools, what became of a target's precision.

    The model that is read back was not calibrated, for one thing.
    """
    return note in ("converter", "calibration", *TOOLS) or note.partition("-")[0] in target_names()


def _fill(module: nn.Module, title: str, bundle: Bundle, path: str, *, prefix: str) -> None:
    """Puts the weights of a graph into a module, in place."""
    graph = onnx.load(bundle.local_path(path)).graph
    weights = {value.name: _tensor(value) for value in graph.initializer}
    found: dict[str, Tensor] = {}
    for name, (weight, bias) in _convolutions(graph, weights, prefix).items():
        found[f"{name}.weight"], found[f"{name}.bias"] = weight, bias
    found |= _in_order(module, graph, weights)
    for name, norm in module.named_modules():
        before = f"{_convolution_before(name)}.bias"
        if isinstance(norm, AttentiveNorm):
            found |= {f"{name}.{key}": value for key, value in _attentive(graph, weights).items()}
        elif isinstance(norm, nn.BatchNorm2d) and before in found:
            found |= {f"{name}.{key}": value for key, value in _plain_norm(norm, found.pop(before)).items()}
    wanted = {key: value for key, value in module.state_dict().items() if not _is_elsewhere(module, key)}
    wrong = sorted(key for key in wanted if key not in found or found[key].shape != wanted[key].shape)
    if wrong:
        raise BundleError(
            f"bundle {bundle.path}: {path} does not hold the {title} of its model ({wrong[0]} is missing or of another "
            "shape); it was made by another exporter: convert its checkpoint"
        )
    module.load_state_dict({key: found[key] for key in wanted}, strict=False)


def _is_elsewhere(module: nn.Module, key: str) -> bool:
    """Whether a graph need not hold that: counters are for training, and what looks at a pose is a graph of its own."""
    own_graph = isinstance(module, PoseModel) and key.startswith(("joints_mlp.", "pose_nets."))
    return key.endswith("num_batches_tracked") or own_graph


def _convolutions(graph: onnx.GraphProto, weights: Weights, prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution, by its name in the model.

    The bias is taken from the node: the exporter stores equal tensors once, under one of their names.
    """
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1].startswith(prefix) and node.input[1].endswith(".weight"):
            weight = weights[node.input[1]]
            bias = weights[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
            found[node.input[1].removeprefix(prefix).removesuffix(".weight")] = (weight, bias)
    return found


def _in_order(module: nn.Module, graph: onnx.GraphProto, weights: Weights) -> dict[str, Tensor]:
    """What the linear layers and layer norms of the pose networks hold; nothing where their numbers do not match."""
    found: dict[str, Tensor] = {}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights]
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    for kind, nodes in ((nn.Linear, products), (nn.LayerNorm, norms)):
        layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kind)]
        if len(layers) != len(nodes):
            return {}
        for (name, layer), node in zip(layers, nodes, strict=True):
            values = [weights[key] for key in node.input[1:] if key in weights]
            if node.op_type == "MatMul":
                values = [values[0].t().contiguous(), *_added(node, graph, weights)]
            found |= {f"{name}.{key}": value for (key, _), value in zip(layer.named_parameters(), values, strict=False)}
    return found


def _added(product: onnx.NodeProto, graph: onnx.GraphProto, weights: Weights) -> list[Tensor]:
    """The bias of a matrix product, in a list; an empty one where what is added is no constant."""
    sums = [node for node in graph.node if node.op_type == "Add" and product.output[0] in node.input]
    return [weights[key] for node in sums for key in node.input if key in weights]


def _tensor(value: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(np.array(numpy_helper.to_array(value)))


def _convolution_before(norm: str) -> str:
    """ "conv2" of "bn2", "stem.0" of "stem.1"."""
    parent, _, last = norm.rpartition(".")
    before = str(int(last) - 1) if last.isdigit() else last.replace("bn", "conv")
    return f"{parent}.{before}" if parent else before


def _plain_norm(norm: nn.BatchNorm2d, bias: Tensor) -> dict[str, Tensor]:
    return {
        "weight": torch.ones_like(bias),
        "bias": bias,
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1.0 - norm.eps),
    }


def _attentive(graph: onnx.GraphProto, weights: Weights) -> dict[str, Tensor]:
    """The affine pairs are the constant weights of two convolutions, that of the scale before that of the shift."""
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    nameless = [
        weights[node.input[1]]
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights and not node.input[1].endswith(".weight")
    ]
    if len(norms) != 1 or len(nameless) != 2:
        return {}
    scale, shift = (weight[:, :, 0, 0].t().contiguous() for weight in nameless)
    mean, variance = (weights[name] for name in norms[0].input[3:5])
    return {"weight_": scale, "bias_": shift, "running_mean": mean, "running_var": variance}
