"""Networks from specs, and the specs of the models that the project trains."""

from collections.abc import Sequence

from posesdk.spec import (
    AdaptationSpec,
    DecodeSpec,
    EdgeBackboneSpec,
    HeadSpec,
    HRNetSpec,
    InputSpec,
    ModelSpec,
    PoseNetsSpec,
)
from posesdk_training.models.dual_centers import DualCenters
from posesdk_training.models.logocap import LogoCap
from posesdk_training.models.stems import Branch

__all__ = [
    "PRESETS",
    "PoseModel",
    "build_model",
    "dac_nano_spec",
    "dac_small_spec",
    "dac_w32_spec",
    "dac_w48_spec",
    "logocap_nano_dual_spec",
    "logocap_nano_spec",
    "logocap_small_spec",
    "logocap_w32_spec",
    "logocap_w48_spec",
    "preset",
]

PoseModel = LogoCap | DualCenters
"""A network of either method."""


def logocap_w32_spec() -> ModelSpec:
    """LOGO-CAP with HRNet-W32, as published: 35 991 429 parameters."""
    return _published_spec(32, short_side=512)


def logocap_w48_spec() -> ModelSpec:
    """LOGO-CAP with HRNet-W48, as published: 72 107 333 parameters."""
    return _published_spec(48, short_side=640)


def _published_spec(width: int, *, short_side: int) -> ModelSpec:
    return ModelSpec(
        name=f"logocap-w{width}",
        frame="published",
        convention="published",
        input=InputSpec(resize="short", side=short_side, multiple=64),
        backbone=HRNetSpec(channels=(width, 2 * width, 4 * width, 8 * width)),
        heads=HeadSpec(heatmap_channels=width),
        decode=DecodeSpec(flip_test=True),
    )


def _edge_input(side: int) -> InputSpec:
    """With mean 0, so that the border of an image is as black as what surrounds it, and normalising costs nothing."""
    return InputSpec(resize="long", side=side, multiple=32, mean=(0.0, 0.0, 0.0))


def logocap_small_spec() -> ModelSpec:
    """LOGO-CAP on a residual edge backbone of four times nano's work, long side 448."""
    return ModelSpec(
        name="logocap-small",
        input=_edge_input(448),
        backbone=EdgeBackboneSpec(stem=32, channels=(64, 128, 256, 288), blocks=(1, 1, 2, 1), neck=96),
        heads=HeadSpec(heatmap_channels=64, offset_channels=128, embedding=32, activation="sigmoid", offset_scale=8.0),
        adaptation=AdaptationSpec(
            local_size=7, global_size=97, reweigh_sigma=16.0, message_channels=(128, 96, 64), affine_pairs=10
        ),
    )


def logocap_nano_spec() -> ModelSpec:
    """LOGO-CAP on the smallest edge backbone, long side 320."""
    return ModelSpec(
        name="logocap-nano",
        input=_edge_input(320),
        backbone=EdgeBackboneSpec(stem=16, channels=(32, 64, 128, 192), blocks=(1, 1, 2, 1), neck=48),
        heads=HeadSpec(heatmap_channels=32, offset_channels=64, embedding=16, activation="sigmoid", offset_scale=8.0),
        decode=DecodeSpec(center_threshold=0.05),
        adaptation=AdaptationSpec(
            local_size=5, global_size=33, reweigh_sigma=16.0, message_channels=(64, 48, 32), affine_pairs=8
        ),
    )


def logocap_nano_dual_spec() -> ModelSpec:
    """LOGO-CAP nano with two centers a person: its adaptation refines the poses of both."""
    return logocap_nano_spec().model_copy(update={"name": "logocap-nano-dual", "centers": "dual"})


def dac_w32_spec() -> ModelSpec:
    """Dual Anatomical Centers with HRNet-W32, at the size that its paper gives: 43.5 M parameters."""
    return _paper_size_spec(32, side=512)


def dac_w48_spec() -> ModelSpec:
    """Dual Anatomical Centers with HRNet-W48, at the size that its paper gives: 79.8 M parameters."""
    return _paper_size_spec(48, side=640)


def _paper_size_spec(width: int, *, side: int) -> ModelSpec:
    return ModelSpec(
        name=f"dac-w{width}",
        method="dac",
        centers="dual",
        input=InputSpec(resize="short", side=side, multiple=64),
        backbone=HRNetSpec(channels=(width, 2 * width, 4 * width, 8 * width)),
        heads=HeadSpec(heatmap_channels=width, heatmap_blocks=1, offsets="adaptive"),
        decode=DecodeSpec(flip_test=True),
    )


def dac_small_spec() -> ModelSpec:
    """Dual Anatomical Centers on the backbone and plain heads of LOGO-CAP small."""
    return _on_edge("dac-small", logocap_small_spec(), encoder=192)


def dac_nano_spec() -> ModelSpec:
    """Dual Anatomical Centers on the backbone and plain heads of LOGO-CAP nano."""
    return _on_edge("dac-nano", logocap_nano_spec(), encoder=64)


def _on_edge(name: str, relative: ModelSpec, *, encoder: int) -> ModelSpec:
    """With pose networks of which both poses of a person take at most what LOGO-CAP nano's adaptation takes for one."""
    nets = PoseNetsSpec(encoder=encoder, hidden=(192, 128), refinement_hidden=(192, 128), refinement_head=64)
    return relative.model_copy(update={"name": name, "method": "dac", "centers": "dual", "pose_nets": nets})


_SPECS = (
    logocap_w32_spec,
    logocap_w48_spec,
    logocap_small_spec,
    logocap_nano_spec,
    logocap_nano_dual_spec,
    dac_w32_spec,
    dac_w48_spec,
    dac_small_spec,
    dac_nano_spec,
)
PRESETS = {spec().name: spec for spec in _SPECS}
"""Specs by model name."""


def preset(name: str) -> ModelSpec:
    """The spec of the model called `name`; ValueError, with the known names, for any other."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()


def build_model(spec: ModelSpec, branches: Sequence[Branch] = ()) -> PoseModel:
    """A freshly initialised network for `spec`, with the stems of the `branches` that it is trained with."""
    return DualCenters(spec, branches) if spec.method == "dac" else LogoCap(spec, branches)
