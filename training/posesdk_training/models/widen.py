"""Function-preserving widening: a wider edge model that computes what a trained narrow one does.

Net2WiderNet (Chen, Goodfellow, Shlens, "Net2Net", ICLR 2016, section 2.2): new channels are copies, and what reads a
channel and its copies shares its weight out among them. Residual blocks that the source has not start as the identity:
the scale of their last norm is zero (Goyal et al., arXiv 1706.02677, section 5.1).
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from posesdk.spec import EdgeBackboneSpec, ModelSpec
from posesdk_training.checkpoint import Checkpoint, load_weights
from posesdk_training.models.build import build_model

__all__ = ["Widened", "widen"]

logger = logging.getLogger(__name__)

MESSAGES = "joints_mlp."
POSE_NETS = "pose_nets."
NORM = r"(weight|bias|running_mean|running_var)"
BLOCK = r"backbone\.stages\.(\d)\.(\d+)\."

Sources = dict[str, Tensor]
"""By name of a set of channels: the source channel (long) that each channel of the wider model is a copy of."""


@dataclass(frozen=True)
class Widened:
    """A wider model: its spec, its weights, and whether what looks at one person was taken over (else it is fresh).

    That is LOGO-CAP's message passing, or DAC's pose networks, which always start anew.
    """

    spec: ModelSpec
    state_dict: dict[str, Tensor]
    per_person: bool


def widen(source: Checkpoint, target: ModelSpec, *, noise: float = 0.5, seed: int = 0) -> Widened:
    """The weights of `source` in a model of `target`, whose trunk gives the same maps up to rounding.

    The embedding's channels are copied likewise. `noise` (0 up to, not including, 1) makes what is shared out among
    copies uneven by that fraction, so that training moves the copies apart; the sums, and with them the maps, stay at
    any value. The message passing computes the same for the same window; with another `local_size` its borders and
    statistics differ. Thresholds and the normalisation of the input are the source's. Raises ValueError for models that
    do not fit together.
    """
    if not 0 <= noise < 1:
        raise ValueError(f"noise {noise}: expected a fraction from 0 up to, not including, 1")
    faults = _faults(source.spec, target)
    if faults:
        raise ValueError(f"cannot widen {source.spec.name} to {target.name}: {'; '.join(faults)}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(target)
    sources = _sources(source.spec, target)
    messages = _same_kind_of_messages(source.spec, target)
    state = model.state_dict()
    for key in state:
        if key.startswith(POSE_NETS) or (key.startswith(MESSAGES) and not messages):
            continue
        if key in source.state_dict:
            value = _scaled(key, source.state_dict[key], source.spec, target)
            state[key] = _widened(key, value, sources, noise=noise, generator=generator)
        elif re.fullmatch(BLOCK + r"body\.4\.weight", key):
            state[key] = torch.zeros_like(state[key])
    load_weights(model, state, source=source.spec.name)
    normalised = target.input.model_copy(update={"mean": source.spec.input.mean, "std": source.spec.input.std})
    spec = target.model_copy(update={"decode": source.spec.decode, "input": normalised})
    logger.info("widened %s (%s) to %s", source.spec.name, _size(source.state_dict), f"{target.name} ({_size(state)})")
    return Widened(spec, state, messages and target.method == "logocap")


def _size(state: Mapping[str, Tensor]) -> str:
    return f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M values"


def _faults(source: ModelSpec, target: ModelSpec) -> list[str]:
    old, new = source.backbone, target.backbone
    if not isinstance(old, EdgeBackboneSpec) or not isinstance(new, EdgeBackboneSpec):
        return [f"both need an edge backbone, these have {old.kind} and {new.kind}"]
    if (source.method, source.centers) != (target.method, target.centers):
        kinds = (f"{spec.method} with {spec.centers} centers" for spec in (source, target))
        return [f"both need one method and as many centers, these are {' and '.join(kinds)}"]
    widths = {
        "stem": (old.stem, new.stem),
        **{f"channels[{i}]": pair for i, pair in enumerate(zip(old.channels, new.channels, strict=True))},
        **{f"blocks[{i}]": pair for i, pair in enumerate(zip(old.blocks, new.blocks, strict=True))},
        "neck": (old.neck, new.neck),
        "heatmap_channels": (source.heads.heatmap_channels, target.heads.heatmap_channels),
        "offset_channels": (source.heads.offset_channels, target.heads.offset_channels),
        "embedding": (source.heads.embedding, target.heads.embedding),
    }
    faults = [f"{name} would shrink from {a} to {b}" for name, (a, b) in widths.items() if b < a]
    if source.skeleton.keypoints != target.skeleton.keypoints:
        faults.append(f"the skeletons {source.skeleton.name} and {target.skeleton.name} differ")
    if source.frame != target.frame:
        faults.append(f"the coordinate frames {source.frame} and {target.frame} differ")
    if source.heads.activation != target.heads.activation:
        faults.append(f"the heatmap activations {source.heads.activation} and {target.heads.activation} differ")
    return faults


def _same_kind_of_messages(source: ModelSpec, target: ModelSpec) -> bool:
    old, new = source.adaptation, target.adaptation
    wider = len(old.message_channels) == len(new.message_channels) and all(
        a <= b for a, b in zip(old.message_channels, new.message_channels, strict=True)
    )
    return wider and old.norm == new.norm and old.affine_pairs <= new.affine_pairs


def _copies(old: int, new: int) -> Tensor:
    """(new,) source channels, in turn; the first `old` are themselves."""
    return torch.arange(new) % old


def _sources(source: ModelSpec, target: ModelSpec) -> Sources:
    old, new = source.backbone, target.backbone
    assert isinstance(old, EdgeBackboneSpec)
    assert isinstance(new, EdgeBackboneSpec)
    keypoints = source.keypoint_count
    embedding = _copies(source.heads.embedding, target.heads.embedding)
    context = torch.arange(keypoints)[:, None] * source.heads.embedding + embedding  # (K, d), as local_context orders
    sources = {
        "image": torch.arange(3),
        "stem": _copies(old.stem, new.stem),
        "neck": _copies(old.neck, new.neck),
        "cls": _copies(source.heads.heatmap_channels, target.heads.heatmap_channels),
        "reg": _copies(source.heads.offset_channels, target.heads.offset_channels),
        "embedding": embedding,
        "context": context.flatten(),
        "heatmaps": torch.arange(keypoints + source.center_count),
        "offsets": torch.arange(2 * keypoints * source.center_count),
        "keypoints": torch.arange(keypoints),
        "pairs": _copies(source.adaptation.affine_pairs, target.adaptation.affine_pairs),
    }
    for index, (a, b) in enumerate(zip(old.channels, new.channels, strict=True)):
        sources[f"stage{index}"] = _copies(a, b)
    for index, (a, b) in enumerate(
        zip(source.adaptation.message_channels, target.adaptation.message_channels, strict=False)
    ):
        sources[f"message{index}"] = _copies(a, b)
    return sources


OUTPUTS_AND_INPUTS = (
    (r"backbone\.stem\.0\.weight", ("stem", "image")),
    (r"backbone\.stem\.1\." + NORM, ("stem",)),
    (BLOCK + r"(?:body|shortcut)\.0\.weight", ("stage{0}", "entry{0}.{1}")),
    (BLOCK + r"body\.3\.weight", ("stage{0}", "stage{0}")),
    (BLOCK + r"(?:body\.1|body\.4|shortcut\.1)\." + NORM, ("stage{0}",)),
    (r"backbone\.laterals\.(\d)\.weight", ("neck", "stage{0}")),
    (r"backbone\.laterals\.\d\.bias", ("neck",)),
    (r"backbone\.merges\.\d\.0\.weight", ("neck", "neck")),
    (r"backbone\.merges\.\d\.1\." + NORM, ("neck",)),
    (r"transition_(\w+)\.0\.weight", ("{0}", "neck")),
    (r"transition_(\w+)\.1\." + NORM, ("{0}",)),
    (r"final_layer_cls\.weight", ("heatmaps", "cls")),
    (r"final_layer_cls\.bias", ("heatmaps",)),
    (r"final_layer_reg\.weight", ("offsets", "reg")),
    (r"final_layer_reg\.bias", ("offsets",)),
)
"""Keys of a model, and the channels of their first and second axis; `{0}` is the first group of the match."""


def _axes(key: str, depth: int) -> tuple[str, ...]:
    """Names of the channels of a tensor's first axes; none for counters. `depth` is the number of message layers."""
    if key.endswith("num_batches_tracked"):
        return ()
    if key.startswith(MESSAGES):
        return _message_axes(key.removeprefix(MESSAGES), depth)
    for pattern, names in OUTPUTS_AND_INPUTS:
        if match := re.fullmatch(pattern, key):
            return tuple(_entry(name.format(*match.groups())) for name in names)
    raise ValueError(f"{key} is no weight of an edge model")


def _entry(name: str) -> str:
    """`entry2.0`: what block 0 of stage 2 reads."""
    if not name.startswith("entry"):
        return name
    stage, block = map(int, name.removeprefix("entry").split("."))
    if block:
        return f"stage{stage}"
    return f"stage{stage - 1}" if stage else "stem"


def _message_axes(key: str, depth: int) -> tuple[str, ...]:
    place, _, rest = key.partition(".")
    layer, is_norm = divmod(int(place), 3)  # convolution, norm, ReLU
    own = f"message{layer}" if layer < depth else "keypoints"
    if not is_norm:
        before = f"message{layer - 1}" if layer else "context"
        return (own, before) if rest == "weight" else (own,)
    if rest in ("weight_", "bias_"):
        return own, "pairs"  # after the transposition in `_widened`
    return ("pairs", own) if rest.startswith("attn_weights") else (own,)


def _widened(key: str, value: Tensor, sources: Sources, *, noise: float, generator: torch.Generator) -> Tensor:
    depth = sum(name.startswith("message") for name in sources)
    axes = _axes(key, depth)
    mixed = key.endswith(("weight_", "bias_"))  # (pairs, channels): what reads the mixture of pairs
    result = value.t() if mixed else value
    if axes:
        result = result[sources[axes[0]]]
    if len(axes) == 2:
        result = _shared_out(result, sources[axes[1]], noise=noise, generator=generator)
    return (result.t() if mixed else result).contiguous().clone()


def _shared_out(weight: Tensor, sources: Tensor, *, noise: float, generator: torch.Generator) -> Tensor:
    """(O, I, ...) -> (O, len(sources), ...): each weight shared out among the copies of its input; sums stay."""
    wide = weight[:, sources]
    parts = 1 + noise * (2 * torch.rand(wide.shape, generator=generator, dtype=torch.float64) - 1)
    totals = torch.zeros(weight.shape, dtype=torch.float64).index_add_(1, sources, parts)
    return (wide * (parts / totals[:, sources])).to(weight.dtype)


def _scaled(key: str, value: Tensor, source: ModelSpec, target: ModelSpec) -> Tensor:
    """The last offset layer, so that the offsets are the same after the target's `offset_scale`."""
    if key.startswith("final_layer_reg."):
        return value * (source.heads.offset_scale / target.heads.offset_scale)
    return value
