"""Knowledge distillation: a student learns the dense maps of a trained teacher, with labels and without.

The teacher's heatmaps are soft targets (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
arXiv 1503.02531) beside the labels, as in "Fast Human Pose Estimation" (Zhang, Zhu, Ye, CVPR 2019, section 3.2). They
count everywhere, also where labels are masked or missing: the teacher sees keypoints that nobody labelled.
"""

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.checkpoint import load_checkpoint, load_model
from posesdk_training.losses.dense import CELLS_PER_PEAK, MIN_PEAK_CELLS
from posesdk_training.models.logocap import DenseMaps
from posesdk_training.settings.learning import LossConfig, TeacherConfig

__all__ = ["Teacher", "distillation_losses", "distilled_heatmap_loss", "distilled_offset_loss"]

PEAK_ENERGY = math.pi
"""Sum over the cells of the square of a Gaussian peak of height 1 and sigma 1."""


class Teacher:
    """A trained model, frozen and in evaluation mode.

    No module on purpose: as part of one it would be optimised, averaged and saved. It computes in `memory_format`.
    `notes` say where it comes from, for the student's checkpoint: what it knows, the student learns.
    Raises CheckpointError for a file that cannot be read and for a model whose maps mean something else than the
    student's.
    """

    def __init__(
        self,
        config: TeacherConfig,
        student: ModelSpec,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._format = memory_format
        try:
            model = load_model(config.checkpoint).requires_grad_(False)
            self.notes = _provenance(config.checkpoint)
            self._model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
        except CheckpointError as error:
            raise CheckpointError(f"cannot take the teacher: {error}; see teacher.checkpoint") from error
        spec = self._model.spec
        faults = []
        if spec.skeleton.keypoints != student.skeleton.keypoints:
            faults.append(f"has the skeleton {spec.skeleton.name}, the student {student.skeleton.name}")
        if spec.centers != student.centers:
            faults.append(f"has centers {spec.centers!r}, the student {student.centers!r}")
        if spec.frame != student.frame:
            faults.append(f"has the coordinate frame {spec.frame!r}, the student {student.frame!r}")
        if faults:
            raise CheckpointError(
                f"the teacher {config.checkpoint} {' and '.join(faults)}; give a teacher of the student's kind"
            )
        self._mean = torch.tensor(spec.input.mean).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(spec.input.std).view(1, 3, 1, 1) * 255

    @torch.no_grad()
    def __call__(self, images: Tensor) -> DenseMaps:
        """The maps of images (B, 3, S, S) uint8 RGB, on their device and in the caller's precision."""
        if images.device != self._mean.device:
            self._model.to(images.device)
            self._mean, self._std = self._mean.to(images.device), self._std.to(images.device)
        normalised = (images.float() - self._mean) / self._std
        maps: DenseMaps = self._model(normalised.contiguous(memory_format=self._format))
        return maps


def _provenance(path: Path) -> dict[str, str]:
    """Name, steps, data and licence of a checkpoint, under names of their own in that of its student."""
    taught = load_checkpoint(path)
    known = {"teacher": taught.spec.name}
    for note in ("step", "training_data", "weights_licence"):
        if note in taught.metadata:
            known[f"teacher_{note}"] = taught.metadata[note]
    return known


def distillation_losses(
    student: DenseMaps, teacher: DenseMaps, config: TeacherConfig, labels: LossConfig, *, centers: int = 1
) -> dict[str, Tensor]:
    """The terms "distilled_heatmap" and "distilled_offset", already times their factors and those of the labels.

    Both are zero, and so are their gradients, where the student's maps are the teacher's. With several `centers` a
    person, the offsets to each of them are normalised apart; their term is the mean.
    """
    offsets = (
        student.offsets.float().chunk(centers, dim=1),
        teacher.offsets.float().chunk(centers, dim=1),
        teacher.heatmaps[:, -centers:].float().chunk(centers, dim=1),
    )
    of_centers = [
        distilled_offset_loss(
            *of_center, level=config.center_level, beta=labels.offset_beta, scaled=labels.offset_error == "relative"
        )
        for of_center in zip(*offsets, strict=True)
    ]
    offset = torch.stack(of_centers).mean()
    heatmap = distilled_heatmap_loss(student, teacher, centers=centers)
    return {
        "distilled_heatmap": config.heatmap_factor * labels.heatmap_factor * heatmap,
        "distilled_offset": config.offset_factor * labels.offset_factor * offset,
    }


def distilled_heatmap_loss(student: DenseMaps, teacher: DenseMaps, *, centers: int = 1) -> Tensor:
    """What the student's heatmaps are off the teacher's.

    Mean squared error of linear heatmaps; of sigmoid ones the cross-entropy towards the teacher's probabilities,
    weighted by |t - p|^2 and normalised by the number of peaks, as `focal_heatmap_loss` does with labels: the last
    channels, of the `centers`, apart. A teacher's faint peak counts as the part of one that its energy is.
    """
    targets = teacher.heatmaps.float()
    if student.activation == "none":
        return F.mse_loss(student.heatmaps.float(), targets)
    targets = targets.clamp(0, 1)
    logits = student.heatmap_logits.float()
    modulation = (targets - torch.sigmoid(logits)).square()
    loss = modulation * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    total = logits.new_zeros(())
    first = logits.shape[1] - centers
    for part in (slice(0, first), *(slice(center, center + 1) for center in range(first, logits.shape[1]))):
        number = targets[:, part].square().sum() / PEAK_ENERGY
        total = total + loss[:, part].sum() / number.clamp(min=MIN_PEAK_CELLS / CELLS_PER_PEAK)
    return total


def distilled_offset_loss(
    offsets: Tensor, targets: Tensor, centers: Tensor, *, level: float, beta: float, scaled: bool
) -> Tensor:
    """SmoothL1 of offsets (B, 2K, h, w) in cells towards the teacher's, averaged with the weights `centers`.

    `centers` (B, 1, h, w) is the teacher's confidence in a center; cells below `level` count nothing. Errors are
    taken relative to the person's size, read off the teacher's offsets; `scaled` takes them so inside the SmoothL1,
    which makes `beta` relative too.
    """
    relative = 1 / _person_sizes(targets)
    confidence = torch.where(centers >= level, centers, 0.0).clamp(0, 1)
    if scaled:
        error = F.smooth_l1_loss(offsets * relative, targets * relative, beta=beta, reduction="none")
    else:
        error = F.smooth_l1_loss(offsets, targets, beta=beta, reduction="none") * relative
    return (error * confidence).sum() / (confidence.sum() * offsets.shape[1]).clamp(min=1)


def _person_sizes(offsets: Tensor) -> Tensor:
    """(B, 1, h, w) square root of the area of the box around the pose that each cell speaks of, in cells, 1 or more."""
    batch, channels, height, width = offsets.shape
    points = offsets.reshape(batch, channels // 2, 2, height, width)
    sizes: Tensor = (points.amax(dim=1) - points.amin(dim=1)).prod(dim=1, keepdim=True).sqrt()
    return sizes.clamp(min=1)
