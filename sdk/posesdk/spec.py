"""`ModelSpec`: the one contract between training, converters and detector.

Encoder, losses, networks, exporter, decoder and evaluation all read it; nothing about a model is kept anywhere else.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from posesdk.skeleton import COCO_17, Skeleton

__all__ = [
    "AdaptationSpec",
    "BackboneSpec",
    "Centers",
    "Convention",
    "DecodeSpec",
    "EdgeBackboneSpec",
    "Frame",
    "HRNetSpec",
    "HeadSpec",
    "InputSpec",
    "ModelSpec",
    "PoseNetsSpec",
]

Frame = Literal["published", "consistent"]
"""Coordinate frame of a model: the published implementation's mixed one, or half-pixel centers everywhere."""
Centers = Literal["single", "dual"]
"""Centers of a person: one, or its head and its body (DAC, section 3.1), in that order of channels."""
Convention = Literal["published", "paper"]
"""Training switches a model was trained with: the published implementation's, or the paper's text."""

PositiveInt = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=8192)]
"""Net px; an input of more would not fit into memory."""

STRIDE = 4
"""Net pixels per map cell, of every model."""
LEAST_CANDIDATES = 10
"""Of each kind of center, for a network that scores poses: on coco_eval, fewer lose the best person of some photos."""


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

    The offset head's output is multiplied by `offset_scale` to give cells. `offsets="adaptive"` gives every keypoint a
    tower of its own with deformable convolutions (DEKR, Geng et al., CVPR 2021), `adaptive_channels` wide, in place of
    `offset_channels`. `heatmap_blocks` residual blocks stand before the heatmaps' output convolution; DEKR has one.
    """

    offsets: Literal["plain", "adaptive"] = "plain"
    adaptive_channels: PositiveInt = 15
    heatmap_blocks: Annotated[int, Field(ge=0)] = 0
    heatmap_channels: PositiveInt = 32
    offset_channels: PositiveInt = 256
    embedding: PositiveInt = 64
    activation: Literal["none", "sigmoid"] = "none"
    offset_scale: Annotated[float, Field(gt=0)] = 1.0


class DecodeSpec(_Value):
    """Center-offset decode and selection of poses.

    At most `max_people` are found, of at least as many candidates of each kind of center (`ModelSpec.most_candidates`).
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


class PoseNetsSpec(_Value):
    """The networks that look at one pose: similarity, confidence and refinement (DAC, sections 3.2 to 3.4).

    Each reduces the `levels` of feature maps sampled at a keypoint to `encoder` values, and sees a `patch` (odd, cells)
    of its heatmap. Poses whose similarity is above `group_threshold` are one person's; `group_sigma` is the spread of
    the spatial similarity, in square roots of the pose's box area. `dsp_per_keypoint_sigma` puts twice the skeleton's
    sigma of each keypoint in its place, and the spatial similarity is the OKS of two poses. Of two poses that are left
    in the end and have an OKS above `final_oks_nms`, 0.9 for one, only the better one stays; None keeps both. The
    switches turn parts off, as in Table 6.
    """

    similarity: bool = True
    confidence: bool = True
    refinement: bool = True
    patch: PositiveInt = 5
    encoder: PositiveInt = 256
    hidden: tuple[PositiveInt, PositiveInt] = (896, 256)
    refinement_hidden: tuple[PositiveInt, PositiveInt] = (880, 256)
    refinement_head: PositiveInt = 128
    embedding: PositiveInt = 128
    group_sigma: Annotated[float, Field(gt=0)] = 0.134
    group_threshold: Annotated[float, Field(ge=0, le=1)] = 0.4
    dsp_per_keypoint_sigma: bool = False
    final_oks_nms: Annotated[float, Field(gt=0, le=1)] | None = None
    select: Literal["pick", "merge"] = "pick"
    score: Literal["confidence", "confidence_center"] = "confidence"


class ModelSpec(_Value):
    """Everything that has to be known to build, train, export and run a model.

    `method` is what is done with the poses that the centers give: LOGO-CAP's adaptation, or DAC's pose networks.
    """

    name: str
    method: Literal["logocap", "dac"] = "logocap"
    centers: Centers = "single"
    skeleton: Skeleton = COCO_17
    frame: Frame = "consistent"
    convention: Convention = "published"
    input: InputSpec = InputSpec()
    backbone: BackboneSpec = HRNetSpec()
    heads: HeadSpec = HeadSpec()
    decode: DecodeSpec = DecodeSpec()
    adaptation: AdaptationSpec = AdaptationSpec()
    pose_nets: PoseNetsSpec = PoseNetsSpec()

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
    def center_count(self) -> int:
        """Number of centers a person Q."""
        return 2 if self.centers == "dual" else 1

    @property
    def most_candidates(self) -> int:
        """Candidates of each kind of center: as many as people, but enough for a network that scores poses to choose.

        The most confident pose need not be that of the strongest center.
        """
        people = self.decode.max_people
        return max(people, LEAST_CANDIDATES) if self.method == "dac" and self.pose_nets.confidence else people

    @property
    def stride(self) -> int:
        """Net pixels per map cell."""
        return STRIDE
