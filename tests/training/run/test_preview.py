"""What a run shows of itself while it goes on."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posesdk_runtimes.errors import DataError
from posesdk_training.checkpoint import load_checkpoint, load_model
from posesdk_training.evaluated_model import open_model
from posesdk_training.run.preview import Validation
from posesdk_training.run.state import Run
from posesdk_training.settings.observation import ValidationConfig
from posesdk_training.train import fit

TinySet = tuple[Path, Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning")


def test_previews_are_pictures_of_the_run_folder_and_of_tensorboard(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:
    preview = {"images": tiny_set[1], "every": 2, "count": 3}
    fit(tiny_run.tiny_config(*tiny_set, steps=3, preview=preview), tmp_path, accelerator="cpu")
    paths = sorted((tmp_path / "preview").iterdir())
    assert [path.name for path in paths] == ["00000002.png", "00000003.png"]  # when due, and at the end
    sheet = cv2.imread(str(paths[0]))
    photo = cv2.imread(str(tiny_set[1] / "0.png"))
    assert sheet.shape[1] > 3 * photo.shape[1]
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    shown = events.Images("preview")
    assert [event.step for event in shown] == [2, 3]
    decoded = cv2.imdecode(np.frombuffer(shown[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded, sheet)


def test_preview_does_not_change_what_is_learned(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    annotations, images = tiny_set
    watched = {
        "preview": {"images": [images / "1.png"], "every": 1},
        "validation": {"annotations": annotations, "images": images, "every": 1, "limit": 2},
    }
    plain, seen = (
        load_checkpoint(fit(tiny_run.tiny_config(*tiny_set, steps=3, **extra), tmp_path / name, accelerator="cpu"))
        for name, extra in (("plain", {}), ("seen", watched))
    )
    assert all(torch.equal(plain.state_dict[key], value) for key, value in seen.state_dict.items())


def test_validation_is_that_of_the_averaged_weights_and_the_best_are_kept(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations, images = tiny_set
    figures = iter([0.1, 0.3, 0.2, 0.3])
    monkeypatch.setattr(Validation, "measure", lambda *_: {"AP": next(figures)})
    validation = {"annotations": annotations, "images": images, "every": 2}
    config = tiny_run.tiny_config(*tiny_set, steps=8, validation=validation)
    fit(config, tmp_path, accelerator="cpu", stop_after=5)
    fit(config, tmp_path, accelerator="cpu")
    with (tmp_path / "validation.csv").open() as file:
        assert [(row["step"], row["AP"]) for row in csv.DictReader(file)] == [
            ("2", "0.1"),
            ("4", "0.3"),
            ("6", "0.2"),
            ("8", "0.3"),
        ]
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.metadata["step"] == "4"  # the first of equals, though the run was resumed since
    assert float(best.metadata["validation_ap"]) == 0.3


def test_perfect_model_validates_with_ap_1(tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path) -> None:
    """A model that answers with the annotation of the image that it is shown."""
    annotations, images = tiny_set
    path = fit(tiny_run.tiny_config(*tiny_set, steps=1), tmp_path, accelerator="cpu")
    tree = json.loads(annotations.read_text())
    people = {
        entry["image_id"]: np.array(entry["keypoints"], np.float32).reshape(1, 17, 3) for entry in tree["annotations"]
    }
    settings = ValidationConfig(annotations=annotations, images=images)
    with open_model(path, device="cpu") as model:
        validation = Validation(settings, model)
        poses = model.detect(np.zeros((96, 96, 3), np.uint8))
        answers = iter(sorted(people))

        class Perfect:
            min_score = 0.0

            def detect(self, image):

                points = people[next(answers)]
                return replace(
                    poses,
                    keypoints=points[..., :2],
                    keypoint_scores=np.ones((1, 17), np.float32),
                    scores=np.ones(1, np.float32),
                )

        assert validation.measure(Perfect())["AP"] == pytest.approx(1.0)


def test_averaged_model_of_a_run_is_the_one_that_it_saves(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path
) -> None:

    config = tiny_run.tiny_config(*tiny_set, steps=2)
    path = fit(config, tmp_path, accelerator="cpu")
    run = Run(config, tmp_path, Fabric(accelerator="cpu"))
    run.resume()
    image = cv2.imread(str(tiny_set[1] / "2.png"))
    with open_model(path, device="cpu") as saved:
        wanted = saved.detect(image)
    found = run.averaged_model().detect(image)
    assert np.array_equal(found.keypoints, wanted.keypoints)
    assert np.array_equal(found.scores, wanted.scores)
    assert load_model(path).spec == config.model


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"preview": {"images": "absent"}}, "no pictures in absent"),
        ({"preview": {"images": ["absent.jpg"]}}, r"no file absent\.jpg"),
        ({"validation": {"annotations": "ANNOTATIONS", "images": "absent"}}, "6 of 6 images"),
    ],
)
def test_missing_pictures_end_a_run_before_its_first_step(
    tiny_run: ModuleType, tiny_set: TinySet, tmp_path: Path, section, message
) -> None:
    if "validation" in section:
        section = {"validation": section["validation"] | {"annotations": tiny_set[0]}}
    with pytest.raises(DataError, match=message):
        fit(tiny_run.tiny_config(*tiny_set, **section), tmp_path, accelerator="cpu")
    assert not (tmp_path / "last.ckpt").exists()
