"""What a network costs: parameters and multiplications.

Counted are those of convolutions, deformable ones among them, and linear layers, as papers do; sampling, norms and the
work between the graphs are not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from posesdk.spec import ModelSpec
from posesdk_training.models.backbone import build_backbone
from posesdk_training.models.build import PoseModel, build_model
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.stems import Branch

__all__ = ["ModelCost", "model_cost", "multiplications", "parameter_count", "trunk_gmac"]

BRANCHES: tuple[Branch, ...] = ("8x", "4x", "2x")


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model. `input_size` (height, width) is of the image that `trunk_gmac` is for.

    `parameters` are those that are deployed, `training_parameters` those with the stems of all branches. `pose_gmac` is
    what all networks that look at a pose take for one; `image_gmac` is trunk and as many poses as are ever looked at.
    """

    input_size: tuple[int, int]
    parameters: int
    training_parameters: int
    trunk_gmac: float
    pose_gmac: float
    image_gmac: float


def model_cost(spec: ModelSpec) -> ModelCost:
    """The cost of a model, found without its weights.

    A pose is that of one center. Refinement of DAC counts for the poses that are chosen, as its paper's total does.
    """
    with torch.device("meta"):
        model = build_model(spec)
        stems = build_backbone(spec.backbone, BRANCHES).stems
        trunk = trunk_gmac(model)
        seen, chosen = _pose_gmac(model)
    candidates = spec.most_candidates * spec.center_count
    return ModelCost(
        input_size=_input_size(spec),
        parameters=parameter_count(model),
        training_parameters=parameter_count(model) + parameter_count(stems),
        trunk_gmac=trunk,
        pose_gmac=seen + chosen,
        image_gmac=trunk + candidates * seen + spec.decode.max_people * chosen,
    )


def parameter_count(model: nn.Module) -> int:
    """Number of learned values."""
    return sum(value.numel() for value in model.parameters())


def multiplications(module: nn.Module, value: Tensor) -> int:
    """Multiplications of a module, in evaluation mode, on one input."""
    training = module.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(value)
    module.train(training)
    return int(counter.get_total_flops()) // 2


def trunk_gmac(model: PoseModel) -> float:
    """Billions of multiplications for the dense maps of one image, square where the model's input is not fixed."""
    image = torch.zeros(1, 3, *_input_size(model.spec), device=next(model.parameters()).device)
    return multiplications(model, image) / 1e9


def _input_size(spec: ModelSpec) -> tuple[int, int]:
    return spec.input.size or (spec.input.side, spec.input.side)


def _pose_gmac(model: PoseModel) -> tuple[float, float]:
    """Of the networks that see every pose, and of those that only see the poses that are chosen."""
    spec = model.spec
    if isinstance(model, LogoCap):
        size = spec.adaptation.local_size
        context = torch.zeros(1, spec.keypoint_count * spec.heads.embedding, size, size)
        return multiplications(model.joints_mlp, context) / 1e9, 0.0
    nets = model.pose_nets
    context = torch.zeros(1, spec.keypoint_count, nets.context_channels)
    seen = sum(multiplications(net, context) for net in (nets.similarity, nets.confidence) if net is not None)
    return seen / 1e9, 0.0 if nets.refinement is None else multiplications(nets.refinement, context) / 1e9
