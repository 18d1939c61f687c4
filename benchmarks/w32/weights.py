"""Models without trained weights, and inputs without content: what a network costs does not depend on either."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posesdk.spec import ModelSpec
from posesdk_training.checkpoint import load_model, save_checkpoint
from posesdk_training.models.build import build_model
from posesdk_training.models.heads import output_layer
from posesdk_training.models.logocap import LogoCap

__all__ = ["random_contexts", "random_model", "random_model_once", "random_pictures"]

ANSWER = 0.3
"""Mean of the attraction maps: one that is nowhere above 0 leaves out work that a trained model has."""
ANSWER_SPREAD, HEATMAP_SPREAD = 0.3, 0.1
"""Parts of the spread that random weights give: no attraction map is negative everywhere, and heatmaps vary by what a
trained model sees between people."""

CALIBRATION_POSES = 4


def random_model(spec: ModelSpec) -> LogoCap:
    """Seeded random weights in evaluation mode, with the statistics of a random picture.

    With them, values stay in range through all layers.
    """
    torch.manual_seed(0)
    model = build_model(spec)
    assert isinstance(model, LogoCap)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    answers, heatmaps = (output_layer(layers) for layers in (model.joints_mlp, model.final_layer_cls))
    assert answers.bias is not None
    with torch.no_grad():
        side = spec.input.side
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.input.mean, spec.input.std))
        maps = model((torch.rand(1, 3, side, side) - mean) / std)
        poses = side * torch.rand(CALIBRATION_POSES, spec.keypoint_count, 2)
        model.attraction_maps(maps.embedding, model.expansion_mesh(poses), torch.zeros(len(poses), dtype=torch.int64))
        answers.bias.fill_(ANSWER)
        answers.weight.mul_(ANSWER_SPREAD)
        heatmaps.weight.mul_(HEATMAP_SPREAD)
    return model.eval()


def random_model_once(spec: ModelSpec, path: Path) -> LogoCap:
    """The random model that is kept in the checkpoint `path`, so that what was converted from it stays its own."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, random_model(spec).state_dict(), spec, metadata={"training_data": "none"})
    model = load_model(path)
    assert isinstance(model, LogoCap)
    return model.eval()


def random_pictures(count: int, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Random inputs (1, H, W, 3) of a trunk of that (height, width)."""
    return list(np.random.default_rng(0).integers(0, 256, (count, 1, *size, 3), dtype=np.uint8))


def random_contexts(spec: ModelSpec, count: int) -> NDArray[Any]:
    """Random input (N, K d, n, n) float32 of an adapt graph."""
    side, channels = spec.adaptation.local_size, spec.keypoint_count * spec.heads.embedding
    values = np.random.default_rng(0).standard_normal((count, channels, side, side), dtype=np.float32)
    return np.maximum(values, 0)
