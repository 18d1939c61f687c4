"""A student learns the maps of a frozen teacher, with labels and without."""

import csv
from pathlib import Path
from types import ModuleType

import pytest
import torch

from posesdk_runtimes.errors import CheckpointError, DataError
from posesdk_training.checkpoint import load_checkpoint, load_model, save_checkpoint
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import SampleKey, collate
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.losses.distillation import (
    Teacher,
    distillation_losses,
    distilled_heatmap_loss,
    distilled_offset_loss,
)
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import DenseMaps
from posesdk_training.run.objective import Objective
from posesdk_training.settings.data import DatasetConfig
from posesdk_training.settings.learning import LossConfig, TeacherConfig
from posesdk_training.train import fit

TinySet = tuple[Path, Path]
TERMS = ("distilled_heatmap", "distilled_offset")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")


def maps(seed: int, activation: str = "sigmoid", *, grad: bool = False) -> DenseMaps:
    generator = torch.Generator().manual_seed(seed)
    logits, offsets, embedding = (torch.randn(2, channels, 6, 5, generator=generator) for channels in (18, 34, 4))
    return DenseMaps(logits.requires_grad_(grad), (4 * offsets).requires_grad_(grad), embedding, activation)  # type: ignore[arg-type]


def taught_config(tiny_run: ModuleType, tiny_set: TinySet, teacher: Path, **changes: object) -> TrainConfig:
    """A tiny run on the photos of the tiny set alone, without their annotations."""
    data = {"workers": 0, "sets": [{"name": "tiny", "images": tiny_set[1]}]}
    taught = {"checkpoint": teacher, "center_level": 0.0}
    config: TrainConfig = tiny_run.tiny_config(*tiny_set, **{"data": data, "teacher": taught, **changes})
    return config


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("offset_error", ["absolute", "relative"])
def test_student_that_is_its_teacher_has_no_loss_and_no_gradient(activation: str, offset_error: str) -> None:
    student, teacher = maps(0, activation, grad=True), maps(0, activation)
    labels = LossConfig.model_validate({"offset_error": offset_error})
    losses = distillation_losses(student, teacher, TeacherConfig(checkpoint=Path("x")), labels)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for value in (*losses.values(), student.heatmap_logits.grad, student.offsets.grad):
        assert value is not None
        assert float(value.detach().abs().max()) < 1e-9


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_student_that_follows_the_gradient_reaches_its_teacher(activation: str) -> None:
    student, teacher = maps(0, activation, grad=True), maps(1, activation)
    parameters = [student.heatmap_logits, student.offsets]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    config = TeacherConfig(checkpoint=Path("x"), center_level=0.0)
    if activation == "none":
        teacher.heatmap_logits[:, -1].abs_().add_(0.1)
    for _ in range(600):
        optimizer.zero_grad()
        losses = distillation_losses(student, teacher, config, LossConfig(offset_factor=10.0, heatmap_factor=50.0))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float((student.heatmaps - teacher.heatmaps).detach().abs().max()) < 0.1
    assert float((student.offsets - teacher.offsets).detach().abs().max()) < 0.1


def test_heatmap_loss_is_the_focal_cross_entropy_over_the_peaks_energy() -> None:
    student, teacher = maps(2), maps(3)
    p, t = student.heatmaps.double(), teacher.heatmaps.double()
    expected = 0.0
    for part in (slice(0, 17), slice(17, 18)):
        ps, ts = p[:, part], t[:, part]
        entropy = -(ts * ps.log() + (1 - ts) * (1 - ps).log())
        expected += float(((ts - ps) ** 2 * entropy).sum() / max(float((ts**2).sum()) / torch.pi, 8 / 3))
    assert float(distilled_heatmap_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_offset_loss_looks_at_confident_centers_and_relative_to_the_person() -> None:
    """One cell of three counts; its pose is 6 cells wide and 24 high: size 12."""
    targets = torch.zeros(1, 4, 1, 3)
    targets[0, :, 0, 1] = torch.tensor([-3.0, -12.0, 3.0, 12.0])
    offsets = targets.clone()
    offsets[0, 0] += 1.2  # in every cell
    centers = torch.tensor([0.05, 0.8, 0.0]).view(1, 1, 1, 3)
    loss = distilled_offset_loss(offsets, targets, centers, level=0.1, beta=0.05, scaled=True)
    # error 0.1 of the size: 0.1 - 0.05 / 2; weight 0.8 over 4 elements of weight 0.8
    assert float(loss) == pytest.approx(0.8 * 0.075 / (0.8 * 4), rel=1e-5)
    absolute = distilled_offset_loss(offsets, targets, centers, level=0.1, beta=0.2, scaled=False)
    assert float(absolute) == pytest.approx(0.8 * 1.1 / 12 / (0.8 * 4), rel=1e-5)


def test_unlabelled_photos_have_no_weight_anywhere(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    dataset = KeypointDataset(taught_config(tiny_run, tiny_set, tmp_path / "x.safetensors"))
    batch = collate([dataset[SampleKey(index, 64, 0)] for index in range(8)])
    assert batch.images.float().std() > 1
    assert not batch.heatmap_weights.any()
    assert not batch.offset_weights.any()
    assert all(len(keypoints) == 0 for keypoints in batch.keypoints)


def test_student_moves_towards_its_teacher_on_unlabelled_photos(
    tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fit(taught_config(tiny_run, tiny_set, tiny_checkpoint, steps=30, batch_size=4), tmp_path, accelerator="cpu")
    logged = rows(tmp_path)
    assert {float(row[name]) for row in logged for name in ("heatmap", "offset", "oks", "refined")} == {0.0}
    for name in TERMS:
        values = [float(row[name]) for row in logged]
        assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_teacher_stays_as_it_is_and_out_of_the_checkpoint(
    tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """What is optimised, averaged and saved is what the objective holds as a module."""
    config = taught_config(tiny_run, tiny_set, tiny_checkpoint, steps=2)
    student = build_model(config.model)
    objective = Objective(student, config).train()
    assert {id(parameter) for parameter in objective.parameters()} == {id(p) for p in student.parameters()}
    assert set(objective.state_dict()) == {f"model.{key}" for key in student.state_dict()}
    teacher = objective._teacher
    assert isinstance(teacher, Teacher)
    before = {key: value.clone() for key, value in teacher._model.state_dict().items()}
    batch = collate([KeypointDataset(config)[SampleKey(index, 64, 0)] for index in range(2)])
    torch.stack(list(objective(batch, phase=config.phases[0]).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher._model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher._model.state_dict().items())
    saved = load_checkpoint(fit(config, tmp_path, accelerator="cpu"))
    assert set(saved.state_dict) == set(student.state_dict())


def test_checkpoint_says_who_taught_it_and_on_what(
    tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """What a teacher has learned from photos of some licence goes on into its students."""
    known = load_checkpoint(tiny_checkpoint)
    notes = {"step": "70", "training_data": "photos of the sea", "weights_licence": "CC BY 4.0", "samples": "9"}
    save_checkpoint(tmp_path / "teacher.safetensors", known.state_dict, known.spec, metadata=notes)
    config = taught_config(tiny_run, tiny_set, tmp_path / "teacher.safetensors", steps=1)
    saved = load_checkpoint(fit(config, tmp_path / "run", accelerator="cpu")).metadata
    assert {name: value for name, value in saved.items() if name.startswith("teacher")} == {
        "teacher": known.spec.name,
        "teacher_step": "70",
        "teacher_training_data": "photos of the sea",
        "teacher_weights_licence": "CC BY 4.0",
    }
    assert saved["training_data"] != "photos of the sea"


def test_resumed_run_keeps_its_teacher(
    tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = taught_config(tiny_run, tiny_set, tiny_checkpoint)
    fit(config, tmp_path / "whole", accelerator="cpu")
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=3)
    fit(config, tmp_path / "parts", accelerator="cpu")
    whole, parts = (
        [[float(row[name]) for name in TERMS] for row in rows(tmp_path / name)] for name in ("whole", "parts")
    )
    assert len(whole) == 6
    assert torch.allclose(torch.tensor(whole), torch.tensor(parts), rtol=1e-4)


def test_labels_are_learned_beside_the_teacher(tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path) -> None:
    """The objective's other terms are those of a run without a teacher."""
    alone = tiny_run.tiny_config(*tiny_set)
    taught = tiny_run.tiny_config(*tiny_set, teacher={"checkpoint": tiny_checkpoint})
    batch = collate([KeypointDataset(alone)[SampleKey(index, 64, 0)] for index in range(2)])
    model = build_model(alone.model)
    dense = alone.phases[0].model_copy(update={"adaptation": False})
    without, beside = (Objective(model, config)(batch, phase=dense) for config in (alone, taught))
    assert set(beside) - set(without) == set(TERMS)
    assert all(torch.allclose(without[name], beside[name]) for name in without)
    assert all(float(beside[name].detach()) > 0 for name in TERMS)


def test_teacher_sees_pixels_as_it_was_trained_on_them(
    tiny_run: ModuleType, tiny_set: TinySet, tiny_checkpoint: Path
) -> None:
    teacher = Teacher(TeacherConfig(checkpoint=tiny_checkpoint), tiny_run.TINY_SPEC)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = load_model(tiny_checkpoint)((images / 255 - mean) / std)
    assert torch.allclose(teacher(images).heatmaps, expected.heatmaps, atol=1e-5)


def test_teacher_of_another_skeleton_is_refused(tiny_run: ModuleType, tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    skeleton = checkpoint.spec.skeleton
    renamed = skeleton.model_copy(update={"name": "other", "keypoints": ("snout", *skeleton.keypoints[1:])})
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, checkpoint.state_dict, checkpoint.spec.model_copy(update={"skeleton": renamed}))
    with pytest.raises(CheckpointError, match="has the skeleton other, the student coco"):
        Teacher(TeacherConfig(checkpoint=path), tiny_run.TINY_SPEC)


def test_teacher_that_is_missing_is_named(tiny_run: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"teacher: .*gone\.safetensors: no such file"):
        Teacher(TeacherConfig(checkpoint=tmp_path / "gone.safetensors"), tiny_run.TINY_SPEC)


def test_photos_without_labels_need_a_teacher(tiny_run: ModuleType, tiny_set: TinySet) -> None:
    data = {"sets": [{"name": "tiny", "images": tiny_set[1]}]}
    with pytest.raises(ValueError, match="give the run a teacher"):
        tiny_run.tiny_config(*tiny_set, data=data)


def test_folder_without_pictures_is_named(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    data = {"sets": [DatasetConfig(name="tiny", images=tmp_path).model_dump()]}
    config = taught_config(tiny_run, tiny_set, tmp_path / "x.safetensors", data=data)
    with pytest.raises(DataError, match="no pictures in"):
        KeypointDataset(config)
