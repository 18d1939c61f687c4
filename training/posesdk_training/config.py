"""The training configuration: one YAML file, validated, with `key=value` overrides."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from posesdk.skeleton import Skeleton
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.data.formats import Format
from posesdk_training.data.model_skeleton import (
    join_skeleton,
    optional_skeleton,
    replaces_skeleton,
    with_model_skeleton,
)
from posesdk_training.models.build import preset
from posesdk_training.overrides import apply_override, merged
from posesdk_training.recipe import read_recipe

__all__ = [
    "AugmentConfig",
    "CropConfig",
    "DataConfig",
    "DatasetConfig",
    "LossConfig",
    "OccluderConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PreviewConfig",
    "TargetConfig",
    "TeacherConfig",
    "TrainConfig",
    "ValidationConfig",
    "load_config",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Range = tuple[float, float]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""How a source starts that is no path. A single letter and a colon is a drive."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetConfig(_Section):
    """One COCO-format annotation file with its image folder, or the `shards` that were made of them.

    A set of `images` without annotations has no labels: a `teacher` alone says what is in its pictures.
    `shards` is a folder that `posesdk-train shard` wrote, the path or URL of its index.json, or a pattern of tar files
    with braces (`set-{000000..000119}.tar`), which may be URLs that webdataset opens (http:, https:, pipe: ...).
    `format` is that of the annotation file; "auto" looks into it. `skeleton` (a name, a file or a mapping, see
    `data.skeletons`) is that of the annotations and wins over the file's own; `categories` names those of persons, by
    default all that declare keypoints. Keypoints become the model's by their names.
    `annotated_keypoints` names the keypoints that this set labels at all (None: every one); the heatmaps of the others
    are masked. `supervised_window`: only the box of each labelled person, grown by this fraction of its long side on
    each side, is supervised, for sets in which other people stand unlabelled (None: the whole image).
    `only_with_persons` leaves out the images without any person annotation. `description` says where the photos come
    from and under which licence, for the model's bundle.
    """

    name: str
    annotations: Path | None = None
    images: Path | None = None
    shards: str | None = None
    format: Format = "auto"
    skeleton: Annotated[Skeleton | None, BeforeValidator(optional_skeleton)] = None
    categories: tuple[str, ...] | None = None
    annotated_keypoints: tuple[str, ...] | None = None
    supervised_window: Annotated[float, Field(ge=0)] | None = None
    only_with_persons: bool = False
    description: str = ""

    @model_validator(mode="after")
    def _check_source(self) -> "DatasetConfig":
        given = [name for name in ("annotations", "images", "shards") if getattr(self, name) is not None]
        if given not in (["annotations", "images"], ["images"], ["shards"]):
            raise ValueError(
                f"data set {self.name!r} takes either annotations and images, or images alone, or shards; "
                f"got {given or 'none of them'}"
            )
        return self

    @property
    def is_labelled(self) -> bool:
        """Whether the set has annotations; images alone are for a teacher."""
        return self.annotations is not None or self.shards is not None


class DataConfig(_Section):
    """The sets, and how their samples are loaded.

    `cache_images` keeps decoded images, up to `cache_gib` in all loader processes of a rank together.
    `shuffle_buffer`: among so many samples of a set in shards, in each loader process, the next one is drawn.
    `resident` keeps all photos in the memory of the training device and makes the samples there (docs/training-gpu.md);
    `pack` names the files of `posesdk-train pack` that it then reads in place of the sets' own.
    """

    sets: tuple[DatasetConfig, ...]
    workers: Annotated[int, Field(ge=0)] = 2
    cache_images: bool = False
    cache_gib: Positive = 4.0
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000
    resident: bool = False
    pack: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _check_pack(self) -> "DataConfig":
        if self.pack and not self.resident:
            raise ValueError("pack holds the photos of resident data alone: set resident to true")
        return self


class CropConfig(_Section):
    """How a sample is cut out of its photo.

    `kind="image"`: around the photo's center, as published: `scale` is the crop side over the short
    side, `shift` the fraction of the crop side by which the center moves. `kind="person"`: with probability `focus`
    around a random labelled person whose size becomes a fraction `person_size` of the crop, else anywhere.
    """

    kind: Literal["image", "person"] = "image"
    scale: Range = (0.75, 1.5)
    shift: Fraction = 0.2
    focus: Fraction = 0.9
    person_size: Range = (0.17, 0.95)
    max_enlargement: Positive = 2.6


class OccluderConfig(_Section):
    """People cut out by `posesdk-train synthesize --cutouts` into `folder`, pasted into samples as people in front.

    `height`: their long side as a fraction of the sample's. Sets with a `supervised_window` are left alone.
    """

    folder: Path
    probability: Fraction = 0.2
    height: tuple[Positive, Positive] = (0.3, 1.1)


class AugmentConfig(_Section):
    """Geometric and photometric augmentation. Angles are in degrees."""

    crop: CropConfig = CropConfig()
    rotation: Positive | Literal[0] = 30.0
    rotation_distribution: Literal["uniform", "normal"] = "uniform"
    rotation_probability: Fraction = 1.0
    flip_probability: Fraction = 0.5
    photometric: bool = False
    border: tuple[int, int, int] = (0, 0, 0)
    occluders: OccluderConfig | None = None


class TargetConfig(_Section):
    """Dense targets. Sigmas are in cells.

    With `sigma_per_size` set, the sigma of a person's heatmaps is that fraction of the square root of its box area,
    clipped to `sigma_range`; else it is fixed. `center_keypoints` names the keypoints whose mean is the person's center
    (at least two of them labelled; else, or when empty, all labelled ones).
    """

    keypoint_sigma: Positive = 2.0
    center_sigma: Positive = 4.0
    keypoint_sigma_per_size: Positive | None = None
    keypoint_sigma_range: Range = (1.0, 2.0)
    center_sigma_per_size: Positive | None = None
    center_sigma_range: Range = (1.0, 3.0)
    background_weight: Fraction = 0.1
    offset_window: Literal["square", "gaussian"] = "square"
    offset_radius: PositiveInt = 4
    offset_gaussian_level: Fraction = 0.35
    offset_weight: Literal["inverse_sqrt_area", "area", "inverse_size"] = "inverse_sqrt_area"
    center_keypoints: tuple[str, ...] = ()
    center_from_visible: bool = False
    min_center_area: Annotated[float, Field(ge=0)] = 32.0**2


class LossConfig(_Section):
    """Loss terms and their factors (LOGO-CAP, section 3.5).

    `convention: paper` in the model sets the switches that differ between the paper and its implementation.
    `offset_error: relative` weighs inside the SmoothL1, which makes `offset_beta` relative to the person's size.
    `refined_window` (odd, net px): the refined-map loss looks at this middle of the window alone; None is the whole.
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


class OptimizerConfig(_Section):
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


class PhaseConfig(_Section):
    """A stretch of training, up to the fraction `until` of all steps.

    `mixture` weighs the data sets by name; `sizes` maps crop sides in net px to their share of the batches;
    `adaptation` switches the local-global adaptation branch and its losses on. With a `learning_rate` of its own the
    phase starts from that one, warm-up included, and runs the whole schedule down within itself.
    """

    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    mixture: dict[str, Share]
    sizes: dict[PositiveInt, Share]
    adaptation: bool = True
    learning_rate: Positive | None = None


class TeacherConfig(_Section):
    """A trained model whose maps the run learns from, beside the labels and where there are none.

    The factors multiply those of the labels (`loss.heatmap_factor`, `loss.offset_factor`). Offsets are learned in
    cells where the teacher's center heatmap is at least `center_level`.
    """

    checkpoint: Path
    heatmap_factor: Share = 1.0
    offset_factor: Share = 1.0
    center_level: Fraction = 0.1


class PreviewConfig(_Section):
    """Predictions on the first `count` of fixed pictures (a folder, or files), drawn every so many steps."""

    images: Path | tuple[Path, ...]
    every: PositiveInt = 2000
    count: PositiveInt = 8


class ValidationConfig(_Section):
    """AP on a labelled set, of its first `limit` images, every so many steps; the best weights are kept."""

    annotations: Path
    images: Path
    every: PositiveInt = 5000
    limit: PositiveInt | None = None


class TrainConfig(_Section):
    """A whole training run. `weights_licence` goes into the checkpoint, and from there into the bundle.

    A step takes `accumulate` batches of `batch_size` samples on each device, and the mean of their gradients.
    `sync_batchnorm` takes norm statistics over all devices. `on_nonfinite: skip` leaves out a step whose loss or
    gradient is no number, and gives up after `max_skips` in a row. Losses are read off the device and checked every
    `check_every` steps: more than 1 keeps a GPU busy, and finds the step that went wrong a little later.
    """

    name: str
    model: ModelSpec
    seed: int = 0
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    targets: TargetConfig = TargetConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    phases: tuple[PhaseConfig, ...]
    steps: PositiveInt
    batch_size: PositiveInt = 12
    accumulate: PositiveInt = 1
    sync_batchnorm: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skips: PositiveInt = 20
    ema_decay: Fraction = 0.999
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    init_from: Path | None = None
    weights_licence: str = ""
    checkpoint_minutes: Positive = 5.0
    log_every: PositiveInt = 50
    check_every: PositiveInt = 1
    teacher: TeacherConfig | None = None
    preview: PreviewConfig | None = None
    validation: ValidationConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.loss.refined_window is not None and self.loss.refined_window % 2 == 0:
            raise ValueError(f"loss.refined_window {self.loss.refined_window} must be odd, so that it has a center")
        if self.loss.heatmap == "focal" and self.model.heads.activation != "sigmoid":
            raise ValueError("loss.heatmap focal trains the logits of a sigmoid: set model.heads.activation to sigmoid")
        names = {entry.name for entry in self.data.sets}
        if len(names) < len(self.data.sets):
            raise ValueError(f"data sets need names of their own, got {[entry.name for entry in self.data.sets]}")
        if self.teacher is None and (bare := [entry.name for entry in self.data.sets if not entry.is_labelled]):
            raise ValueError(f"data sets {bare} have no annotations: name them, or give the run a teacher")
        if self.check_every > 1 and self.on_nonfinite == "skip":
            raise ValueError("on_nonfinite skip has to see every step: set check_every to 1")
        if self.log_every % self.check_every:
            raise ValueError(f"log_every {self.log_every} must be a multiple of check_every {self.check_every}")
        keypoints = self.model.skeleton.keypoints
        if strange := set(self.targets.center_keypoints) - set(keypoints):
            raise ValueError(f"targets.center_keypoints: {sorted(strange)} are none of the model's {keypoints}")
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"phases must end at rising fractions, the last at 1.0; got {ends}")
        for phase in self.phases:
            unknown = set(phase.mixture) - names
            if unknown:
                raise ValueError(
                    f"phase until {phase.until}: no data set named {sorted(unknown)}; there are {sorted(names)}"
                )
            if sum(phase.mixture.values()) <= 0 or sum(phase.sizes.values()) <= 0:
                raise ValueError(f"phase until {phase.until}: mixture and sizes need a positive weight")
            wrong = [size for size in phase.sizes if size % self.model.input.multiple]
            if wrong:
                raise ValueError(
                    f"phase until {phase.until}: sizes {wrong} are not multiples of {self.model.input.multiple}"
                )
        return self

    def phase_at(self, step: int) -> PhaseConfig:
        """The phase that training step `step` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.until * self.steps:
                return phase
        return self.phases[-1]

    def schedule_at(self, step: int) -> tuple[int, int, OptimizerConfig]:
        """Step, length and settings of the learning-rate schedule that training step `step` (from 0) belongs to.

        The run's own, or that of a phase with a learning rate of its own, counted from the phase's start.
        """
        phase = self.phase_at(step)
        if phase.learning_rate is None:
            return step, self.steps, self.optimizer
        index = self.phases.index(phase)
        start = math.ceil(self.phases[index - 1].until * self.steps) if index else 0
        settings = self.optimizer.model_copy(update={"learning_rate": phase.learning_rate})
        return step - start, math.ceil(phase.until * self.steps) - start, settings


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """The configuration in a YAML file on top of its `base`, with `a.b=value` overrides (values are parsed as YAML).

    Relative paths of data are taken from `data.root`, by default the working directory. Raises DataError for a file
    that cannot be read or does not fit, naming the field.
    """
    tree = read_recipe(path)
    for override in overrides:
        apply_override(tree, override)
    if isinstance(tree.get("model"), str):
        tree["model"] = preset(tree["model"])
    elif isinstance(tree.get("model"), dict) and "preset" in tree["model"]:
        tree["model"] = _derived(tree["model"])
    _join_root(tree.get("data"))
    tree = with_model_skeleton(tree)
    try:
        return TrainConfig.model_validate(_with_convention(tree))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".lstrip(": ") for fault in error.errors())
        raise DataError(f"the training configuration {path} does not fit: {'; '.join(faults)}") from error


PAPER_SWITCHES: dict[str, dict[str, Any]] = {
    "loss": {
        "refined_target_sigma": 16.0,
        "gt_matching": "clamped_mean",
        "oks_weight": "similarity",
        "offset_normaliser": "cells",
    },
    "targets": {"offset_weight": "area"},
}
"""What `model.convention: paper` stands for where the configuration does not say otherwise."""


def _with_convention(tree: dict[str, Any]) -> dict[str, Any]:
    model = tree.get("model")
    convention = model.get("convention") if isinstance(model, dict) else getattr(model, "convention", None)
    return merged(PAPER_SWITCHES, tree) if convention == "paper" else tree


def _join_root(data: Any) -> None:
    """Puts `root` in front of the paths of a data section's sets; whatever is malformed is left to validation."""
    if not isinstance(data, dict) or "root" not in data:
        return
    root = Path(str(data.pop("root")))
    for entry in data.get("sets") or ():
        for key in ("annotations", "images"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str):
                entry[key] = root / entry[key]
        if isinstance(entry, dict) and isinstance(entry.get("shards"), str) and not URL.match(entry["shards"]):
            entry["shards"] = str(root / entry["shards"])
        if isinstance(entry, dict) and isinstance(entry.get("skeleton"), str):
            entry["skeleton"] = join_skeleton(root, entry["skeleton"])


def _derived(tree: dict[str, Any]) -> dict[str, Any]:
    base = preset(tree["preset"]).model_dump()
    if replaces_skeleton(tree):  # which is replaced as a whole, and with it what is counted in keypoints
        del base["skeleton"], base["decode"]["nms_keypoints"]
    return merged(base, {key: value for key, value in tree.items() if key != "preset"})
