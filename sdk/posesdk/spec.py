"""`ModelSpec`: the one contract between training, converters and detector.

Encoder, losses, networks, exporter, decoder and evaluation all read it; nothing about a model is kept anywhere else.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from posesdk.skeleton import COCO_17, Skeleton

__all__ = [
    "AdaptationSpec",
    "BackboneSpec",
    "Convention",
    "DecodeSpec",
    "EdgeBackboneSpec",
    "Frame",
    "HRNetSpec",
    "HeadSpec",
    "InputSpec",
    "ModelSpec",
]

Frame = Literal["published", "consistent"]
"""Coordinate frame of a model: the published implementation's mixed one, or half-pixel centers everywhere."""
Convention = Literal["published", "paper"]
"""Training switches a model was trained with: the published implementation's, or the paper's text."""

PositiveInt = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=8192)]
"""Net px; an input of more would not fit into memory."""

STRIDE = 4
"""Net pixels per map cell, of every model."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Value):
    """How an image becomes the network's input.

    `resize="short"`: the short side becomes `side`, the long one follows; `"long"`: the long side becomes `side`, the
    short one follows; both are then padded up to `multiple`. `"fixed"`: the image is fitted into `size` (height,
    width).
    """

    resize: Literal["short", "long", "fixed"] = "short"
    side: Side = 512
    size: tuple[Side, Side] | None = None
    multiple: Side = 64
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check(self) -> "InputSpec":
        if (self.resize == "fixed") != (self.size is not None):
            raise ValueError("input: `size` goes with resize='fixed', and only with it")
        if self.size is not None and any(side % self.multiple for side in self.size):
            raise ValueError(f"input: size {self.size} is not a multiple of {self.multiple}")
        return self


class HRNetSpec(_Value):
    """HRNet with four branches; `channels` of branch 0..3, modules and blocks per branch of stages 2, 3 and 4."""

    kind: Literal["hrnet"] = "hrnet"
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128, 256)
    modules: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 4, 3)
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 4, 4)


class EdgeBackboneSpec(_Value):
    """Residual network with strides 4 to 32 and a feature pyramid back to stride 4."""

    kind: Literal["edge"] = "edge"
    stem: PositiveInt = 16
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128, 192)
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 2, 1)
    neck: PositiveInt = 48


BackboneSpec = Annotated[HRNetSpec | EdgeBackboneSpec, Field(discriminator="kind")]


class HeadSpec(_Value):
    """Widths of the dense heads; `activation` is applied to the heatmaps inside the exported trunk.

    The offset head's output is multiplied by `offset_scale` to give cells.
    """

    heatmap_channels: PositiveInt = 32
    offset_channels: PositiveInt = 256
    embedding: PositiveInt = 64
    activation: Literal["none", "sigmoid"] = "none"
    offset_scale: Annotated[float, Field(gt=0)] = 1.0


class DecodeSpec(_Value):
    """Center-offset decode and selection of poses.

    A model whose skeleton has another number of keypoints than COCO's 17 takes as many `nms_keypoints` in proportion
    where they are not given: 7 of 14.
    """

    max_people: PositiveInt = 30
    center_threshold: Annotated[float, Field(ge=0, le=1)] = 0.01
    flip_test: bool = False
    nms_distance: Annotated[float, Field(ge=0)] = 0.05
    nms_keypoints: Annotated[int, Field(ge=0)] = 8
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.02
    keypoint_threshold: Annotated[float, Field(ge=0, le=1)] = 0.01


class AdaptationSpec(_Value):
    """Local-global contextual adaptation (LOGO-CAP, sections 3.3 and 3.4). Sizes are odd, in mesh steps and net px."""

    level: Literal["full", "partial", "none"] = "full"
    local_size: PositiveInt = 11
    global_size: PositiveInt = 97
    reweigh_sigma: Annotated[float, Field(gt=0)] | None = 16.0
    message_channels: tuple[PositiveInt, ...] = (512, 256, 128)
    norm: Literal["attentive", "batch"] = "attentive"
    affine_pairs: PositiveInt = 20
    prior: Literal["both", "kem", "kam"] = "both"

    @model_validator(mode="after")
    def _check(self) -> "AdaptationSpec":
        if self.local_size % 2 == 0 or self.global_size % 2 == 0:
            raise ValueError(
                f"adaptation: local_size {self.local_size} and global_size {self.global_size} must be odd, "
                "so that a window has a center"
            )
        if len(self.message_channels) not in (0, 3):
            raise ValueError("adaptation: message_channels must have 3 widths, or none for one 1x1 convolution")
        return self


class ModelSpec(_Value):
    """Everything that has to be known to build, train, export and run a model."""

    name: str
    method: Literal["logocap"] = "logocap"
    skeleton: Skeleton = COCO_17
    frame: Frame = "consistent"
    convention: Convention = "published"
    input: InputSpec = InputSpec()
    backbone: BackboneSpec = HRNetSpec()
    heads: HeadSpec = HeadSpec()
    decode: DecodeSpec = DecodeSpec()
    adaptation: AdaptationSpec = AdaptationSpec()

    @model_validator(mode="after")
    def _scale_suppression(self) -> "ModelSpec":
        if "nms_keypoints" not in self.decode.model_fields_set and len(self.skeleton) != len(COCO_17):
            near = round(self.decode.nms_keypoints * len(self.skeleton) / len(COCO_17))
            object.__setattr__(self, "decode", self.decode.model_copy(update={"nms_keypoints": near}))
        return self

    @property
    def keypoint_count(self) -> int:
        """Number of keypoints K."""
        return len(self.skeleton)

    @property
    def stride(self) -> int:
        """Net pixels per map cell."""
        return STRIDE
