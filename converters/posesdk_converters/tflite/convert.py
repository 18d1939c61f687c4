"""The two graphs of a model as .tflite files in float32, made by litert-torch, and the check that each passes."""

import copy
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

from posesdk.methods import method_of, trunk_outputs
from posesdk_converters.onnx import PERSON_COUNTS, TOLERANCE, random_contexts, relative_error
from posesdk_converters.tflite.graph import free_first_dimension, name_tensors
from posesdk_converters.tflite.quiet import quiet
from posesdk_runtimes.errors import GateError, MissingDependencyError
from posesdk_runtimes.registry import open_runtime
from posesdk_training.models.build import PoseModel
from posesdk_training.models.graphs import Adapt, output_maps
from posesdk_training.models.normalisation import LEVELS, take_levels

__all__ = ["convert_adapt", "convert_trunk", "import_converter"]

INSTALL = "pip install 'posesdk[convert-mobile]'"
Size = tuple[int, int]


def convert_trunk(model: PoseModel, input_size: Size) -> bytes:
    """`trunk` for images (1, H, W, 3) of one `input_size` (height, width), checked against torch.

    Raises MissingDependencyError without litert-torch, GateError where the graph does not equal the model.
    """
    trunk = _Trunk(model, input_size).eval()
    levels = np.random.default_rng(0).integers(0, 256, (1, *input_size, 3), dtype=np.uint8)
    content = _convert(_fold_norms(trunk), {"image": torch.zeros((1, *input_size, 3), dtype=torch.uint8)})
    _require_equal(content, trunk, "image", [torch.from_numpy(levels)])
    return content


def convert_adapt(model: PoseModel) -> bytes:
    """`adapt` for any number of persons, checked against torch at PERSON_COUNTS.

    Convolutions are converted for one person, and an interpreter resizes them. Matrix products need reshapings, which
    hold the number of persons: they are converted for two, since the converter leaves out an axis of length 1, and the
    number is freed then.
    """
    adapt = _Adapt(model).eval()
    if any(isinstance(layer, nn.Linear) for layer in adapt.modules()):
        content = free_first_dimension(_convert(_plain_norms(adapt), {"context": random_contexts(model.spec, 2)}))
    else:
        content = _convert(adapt, {"context": random_contexts(model.spec, 1)})
    _require_equal(content, adapt, "context", [random_contexts(model.spec, count) for count in PERSON_COUNTS])
    return content


def import_converter() -> Any:
    """The `litert_torch` module. Raises MissingDependencyError."""
    try:
        with quiet():
            module = importlib.import_module("litert_torch")
    except ImportError as error:
        raise MissingDependencyError(
            f"converting for TFLite: litert-torch cannot be imported ({error}); install it with `{INSTALL}`"
        ) from error
    module.config.show_progress = False
    return module


class _Trunk(nn.Module):
    """`posesdk_training.models.graphs.Trunk` for one image size, its outputs by name.

    Mean and deviation are one row of an image wide: against three values XNNPACK works pixel by pixel, which takes
    another 0.9 ms at 320x320.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: PoseModel, input_size: Size) -> None:
        super().__init__()
        self.names = tuple(trunk_outputs(model.spec))
        source = model.spec.input
        self.centers = any(source.mean)
        self.model = model if self.centers else take_levels(model)
        for name, values in (("mean", source.mean), ("std", source.std)):
            self.register_buffer(name, LEVELS * torch.tensor(values).expand(1, 1, input_size[1], 3).contiguous())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        pixels = image.float()
        if self.centers:
            pixels = (pixels - self.mean) / self.std
        return dict(zip(self.names, output_maps(self.model(pixels.permute(0, 3, 1, 2))), strict=True))


class _Adapt(nn.Module):
    """`Adapt` with its outputs by name."""

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.adapt = Adapt(model)
        self.names = tuple(method_of(model.spec).adapt_outputs(model.spec))

    def forward(self, context: Tensor) -> dict[str, Tensor]:
        found = self.adapt(context)
        return dict(zip(self.names, found if isinstance(found, tuple) else (found,), strict=True))


class _LayerNorm(nn.Module):
    """`nn.LayerNorm` over the last axis, in operators that keep the first one apart."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, values: Tensor) -> Tensor:
        centered = values - values.mean(dim=-1, keepdim=True)
        variance = centered.square().mean(dim=-1, keepdim=True)
        return centered * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def _plain_norms(module: nn.Module) -> nn.Module:
    """A copy with `_LayerNorm`: the converter takes all rows of torch's own for one list, of the length that it saw."""
    plain = copy.deepcopy(module)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, nn.LayerNorm):
            plain.set_submodule(name, _LayerNorm(layer))
    return plain


def _fold_norms(module: nn.Module) -> GraphModule:
    """The same function with the batch norms in the convolutions before them: fewer nodes halve the conversion's time.

    The modules of `module` itself are left as they are.
    """
    traced = symbolic_trace(module)
    layers = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or source is None or source.op != "call_module" or len(source.users) > 1:
            continue
        layer, norm = layers[source.target], layers[node.target]
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            traced.add_submodule(source.target, fuse_conv_bn_eval(layer, norm))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _convert(module: nn.Module, example: dict[str, Tensor]) -> bytes:
    """The names of the example and of the module's outputs become those of the signature."""
    converter = import_converter()
    with quiet():
        content = converter.convert(module, sample_kwargs=example).model_content()
    return name_tensors(content)


def _require_equal(content: bytes, module: nn.Module, name: str, inputs: Sequence[Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.tflite"
        path.write_bytes(content)
        runtime = open_runtime(path, runtime="tflite")
        try:
            for value in inputs:
                with torch.inference_mode():
                    wanted = module(value)
                found = runtime.run({name: value.numpy()})
                for output, tensor in wanted.items():
                    error = relative_error(found[output], tensor.numpy())
                    if not error <= TOLERANCE:
                        raise GateError(
                            f"converting for TFLite: {output} for {name} {tuple(value.shape)} is {error:.2g} from "
                            f"torch, allowed {TOLERANCE:g}; use the pinned litert-torch"
                        )
        finally:
            runtime.close()
