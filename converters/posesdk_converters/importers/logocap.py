"""Published LOGO-CAP checkpoints (cherubicXN/logocap): the architecture is read off the tensor shapes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from posesdk.skeleton import COCO_17
from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import Checkpoint, key_faults, load_weights
from posesdk_training.models.build import build_model
from posesdk_training.torch_file import read_torch_weights

__all__ = ["PUBLISHED_SHORT_SIDES", "ImportOptions", "import_logocap"]

PUBLISHED_SHORT_SIDES = {32: 512, 48: 640}
"""Short side in net px by the width of branch 0, as published; other widths use 512."""

LICENCE = "not stated by the published project"

PREFIXES = (
    "backbone.",
    "transition_cls.",
    "transition_reg.",
    "transition_embedding.",
    "final_layer_cls.",
    "final_layer_reg.",
    "joints_mlp.",
)

ANCHORS = (
    "backbone.conv1.weight",
    *(f"backbone.stage4.0.branches.{branch}.0.conv1.weight" for branch in range(4)),
    "backbone.stage2.0.branches.0.0.conv1.weight",
    "backbone.stage3.0.branches.0.0.conv1.weight",
    "transition_cls.0.weight",
    "transition_reg.0.weight",
    "transition_embedding.0.weight",
    "final_layer_cls.weight",
    "final_layer_reg.weight",
    "joints_mlp.0.weight",
)
"""The tensors whose shapes say what the architecture is."""


@dataclass(frozen=True)
class ImportOptions:
    """What a published checkpoint does not say; lengths in net px, None for the published value."""

    short_side: int | None = None
    global_window: int = 97
    gaussian_sigma: float = 16.0
    local_size: int = 11
    name: str | None = None


def import_logocap(path: str | os.PathLike[str], options: ImportOptions | None = None) -> Checkpoint:
    """The checkpoint in a published file, with `frame` and `convention` "published" and the flip test on.

    Takes what `read_torch_weights` does. Raises CheckpointError for a file that cannot be read, or whose keys or shapes
    are not of the published layout.
    """
    tensors = read_torch_weights(path)
    spec = _spec(tensors, options or ImportOptions(), path)
    load_weights(build_model(spec), tensors, source=path)
    return Checkpoint(spec, tensors, {"imported_from": os.path.basename(path), "weights_licence": LICENCE})


def _spec(tensors: Mapping[str, Tensor], options: ImportOptions, path: str | os.PathLike[str]) -> ModelSpec:
    missing = [key for key in ANCHORS if key not in tensors or tensors[key].ndim != 4]
    if missing:
        strange = [key for key in tensors if not key.startswith(PREFIXES)]
        raise CheckpointError(
            f"published checkpoint {path}: not of the published LOGO-CAP layout: "
            f"{key_faults(missing=missing, unexpected=strange)}; give a published LOGO-CAP checkpoint"
        )
    width = {key: int(tensors[key].shape[0]) for key in ANCHORS}
    keypoints = width["final_layer_reg.weight"] / 2
    if keypoints != len(COCO_17):
        raise CheckpointError(
            f"published checkpoint {path}: {keypoints:g} keypoints instead of the {len(COCO_17)} of COCO; "
            "give a COCO checkpoint"
        )
    backbone = _backbone(tensors)
    short_side = options.short_side or PUBLISHED_SHORT_SIDES.get(backbone.channels[0], 512)
    return ModelSpec(
        name=options.name or f"logocap-hrnet-w{backbone.channels[0]}",
        frame="published",
        convention="published",
        input=InputSpec(resize="short", side=short_side),
        backbone=backbone,
        heads=HeadSpec(
            heatmap_channels=width["transition_cls.0.weight"],
            offset_channels=width["transition_reg.0.weight"],
            embedding=width["transition_embedding.0.weight"],
        ),
        decode=DecodeSpec(flip_test=True, score_threshold=0.0, keypoint_threshold=0.0),
        adaptation=_adaptation(tensors, options),
    )


def _backbone(tensors: Mapping[str, Tensor]) -> HRNetSpec:
    channels = [int(tensors[f"backbone.stage4.0.branches.{b}.0.conv1.weight"].shape[0]) for b in range(4)]
    modules = [_count(tensors, f"backbone.stage{stage}.") for stage in (2, 3, 4)]
    blocks = [_count(tensors, f"backbone.stage{stage}.0.branches.0.") for stage in (2, 3, 4)]
    return HRNetSpec.model_validate({"channels": channels, "modules": modules, "blocks": blocks})


def _adaptation(tensors: Mapping[str, Tensor], options: ImportOptions) -> AdaptationSpec:
    widths = [int(tensors[key].shape[0]) for index in (0, 3, 6) if (key := f"joints_mlp.{index}.weight") in tensors]
    pairs = tensors.get("joints_mlp.4.weight_")
    return AdaptationSpec.model_validate(
        {
            "local_size": options.local_size,
            "global_size": options.global_window,
            "reweigh_sigma": options.gaussian_sigma,
            "message_channels": widths if len(widths) == 3 else [],
            "norm": "batch" if len(widths) == 3 and pairs is None else "attentive",
            "affine_pairs": AdaptationSpec().affine_pairs if pairs is None else int(pairs.shape[0]),
        }
    )


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow `prefix`."""
    return len({key[len(prefix) :].split(".", 1)[0] for key in tensors if key.startswith(prefix)})
