"""Settings of what is learned from the samples, and how: losses, teacher, optimizer, phases."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from posesdk_training.settings.section import Fraction, Positive, PositiveInt, Section, Share

__all__ = ["LossConfig", "ModelPart", "OptimizerConfig", "PhaseConfig", "TeacherConfig"]

ModelPart = Literal["backbone", "heads", "adaptation"]
"""The backbone, what makes dense maps of its features, and what looks at one person."""


class LossConfig(Section):
    """Loss terms and their factors (LOGO-CAP, section 3.5; DAC, sections 3.2 to 3.4).

    `convention: paper` in the model sets the switches that differ between the paper and its implementation.
    `offset_error: relative` weighs inside the SmoothL1, which makes `offset_beta` relative to the person's size.
    `refined_window` (odd, net px): the refined-map loss looks at this middle of the window alone; None is the whole.
    DAC's pose networks learn from the decoded candidates and from `jittered_copies` of every labelled person. A pose is
    a person's for the similarity from an OKS of `identity_oks` on, of each image at most `pairs` pairs of one person
    and as many of two; it is refined from `refinement_oks` on.
    """

    heatmap: Literal["mse", "focal"] = "mse"
    heatmap_factor: Positive = 1.0
    offset_beta: Positive = 1 / 9
    offset_factor: Positive = 0.01
    offset_error: Literal["absolute", "relative"] = "absolute"
    offset_normaliser: Literal["elements", "cells"] = "elements"
    oks_factor: Annotated[float, Field(ge=0)] = 0.01
    refined_factor: Annotated[float, Field(ge=0)] = 1.0
    refined_target_sigma: Positive = 4.0
    refined_window: Annotated[int, Field(gt=0)] | None = None
    gt_matching: Literal["window_max", "clamped_mean"] = "window_max"
    oks_weight: Literal["gain", "similarity"] = "gain"
    jittered_copies: Annotated[int, Field(ge=0)] = 4
    pairs: PositiveInt = 128
    identity_oks: Fraction = 0.5
    refinement_oks: Fraction = 0.3


class TeacherConfig(Section):
    """A trained model whose maps the run learns from, beside the labels and where there are none.

    The factors multiply those of the labels (`loss.heatmap_factor`, `loss.offset_factor`). Offsets are learned in
    cells where the teacher's center heatmap is at least `center_level`.
    """

    checkpoint: Path
    heatmap_factor: Share = 1.0
    offset_factor: Share = 1.0
    center_level: Fraction = 0.1


class OptimizerConfig(Section):
    """Optimizer and learning-rate schedule. `milestones` are fractions of all steps."""

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "multistep"] = "multistep"
    milestones: tuple[Fraction, ...] = (90 / 140, 120 / 140)
    decay: Positive = 0.1
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.02
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Positive | None = None


class PhaseConfig(Section):
    """A stretch of training, up to the fraction `until` of all steps.

    `mixture` weighs the data sets by name; `sizes` maps crop sides in net px to their share of the batches.
    `adaptation` trains what looks at one person: LOGO-CAP's local-global adaptation, or DAC's pose networks. `dense`
    trains the dense net; without it, that net stays as it is, with its averaged weights and running statistics, and
    the branches beside 4x are left out. With a `learning_rate` of its own the phase starts from that one, warm-up
    included, and runs the whole schedule down within itself, at `milestones` of its own where they are given.
    """

    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    mixture: dict[str, Share]
    sizes: dict[PositiveInt, Share]
    adaptation: bool = True
    dense: bool = True
    learning_rate: Positive | None = None
    milestones: tuple[Fraction, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> "PhaseConfig":
        if not (self.dense or self.adaptation):
            raise ValueError(f"the phase until {self.until} trains nothing: set dense or adaptation to true")
        if self.milestones is not None and self.learning_rate is None:
            raise ValueError(f"the phase until {self.until} has milestones: give it a learning_rate, too")
        return self
