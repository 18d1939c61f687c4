"""A skeleton of five keypoints with names of its own, from an annotation file to drawn pictures and figures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("lightning", reason="training needs the [training] extra")
pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")
pytest.importorskip("openvino", reason="the conversion needs the [convert] extra")

from posesdk.bundle import open_bundle
from posesdk.commands import app as device_app
from posesdk.detector import Detector
from posesdk.selftest import run_selftest
from posesdk_converters.program import app as convert_app
from posesdk_training.program import app as training_app

NAMES = ("Snout", "L_Paw", "R_Paw", "Tail.L", "Tail.R")
SIZE = 96


def animal(rng):
    """(5, 2) keypoints of an upright beast in a square picture."""
    unit = np.array([[0, -1], [-0.7, 0.2], [0.7, 0.2], [-0.4, 1], [0.4, 1]])
    return rng.uniform(0.4, 0.6, 2) * SIZE + unit * SIZE * rng.uniform(0.2, 0.35)


@pytest.fixture(scope="module")
def beasts(tmp_path_factory):
    """A folder with photos of one drawn beast each, their annotations, and the configuration of a short run."""
    folder = tmp_path_factory.mktemp("beasts")
    rng = np.random.default_rng(1)
    images, annotations = [], []
    (folder / "images").mkdir()
    for number in range(1, 9):
        points = animal(rng)
        picture = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        for index, point in enumerate(points):
            color = tuple(int(value) for value in np.roll([250, 40 * index, 90], index))
            cv2.circle(picture, tuple(np.round(point).astype(int).tolist()), 5, color, cv2.FILLED)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        low, high = points.min(0), points.max(0)
        images.append({"id": number, "file_name": f"{number}.png", "width": SIZE, "height": SIZE})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": float(np.prod(high - low)),
                "num_keypoints": 5,
                "keypoints": np.c_[points, np.full(5, 2)].reshape(-1).tolist(),
            }
        )
    category = {
        "id": 1,
        "name": "beast",
        "keypoints": NAMES,
        "skeleton": [[1, 2], [1, 3], [2, 4], [3, 5]],
        "sigmas": [0.05, 0.1, 0.1, 0.08, 0.08],
    }
    tree = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "beasts.json").write_text(json.dumps(tree))
    (folder / "beasts.yaml").write_text(yaml.safe_dump(configuration(folder)))
    return folder


def configuration(folder):
    return {
        "name": "beasts",
        "model": {
            "name": "beasts",
            "skeleton": "data",
            "input": {"resize": "long", "side": 96, "multiple": 32},
            "backbone": {
                "kind": "edge",
                "stem": 8,
                "channels": [16, 16, 16, 16],
                "blocks": [1, 1, 1, 1],
                "neck": 16,
            },
            "heads": {
                "heatmap_channels": 16,
                "offset_channels": 20,
                "embedding": 4,
                "activation": "sigmoid",
                "offset_scale": 8.0,
            },
            "decode": {"score_threshold": 0.0},
            "adaptation": {
                "local_size": 5,
                "global_size": 25,
                "reweigh_sigma": 4.0,
                "message_channels": [16, 16, 8],
                "affine_pairs": 4,
            },
        },
        "data": {
            "root": str(folder),
            "workers": 0,
            "sets": [{"name": "beasts", "annotations": "beasts.json", "images": "images"}],
        },
        "augment": {"crop": {"kind": "person", "person_size": [0.5, 0.8]}, "rotation": 5},
        "targets": {"background_weight": 1.0, "offset_window": "gaussian", "offset_weight": "inverse_size"},
        "loss": {"heatmap": "focal", "offset_beta": 0.05, "offset_error": "relative", "offset_factor": 10.0},
        "optimizer": {"kind": "adamw", "learning_rate": 0.004, "schedule": "cosine", "clip_norm": 5.0},
        "phases": [{"mixture": {"beasts": 1.0}, "sizes": {96: 1.0}}],
        "steps": 80,
        "batch_size": 4,
        "ema_decay": 0.9,
    }


def run(app, *arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def trained(beasts) -> Path:
    run(training_app, "fit", beasts / "beasts.yaml", "--run", beasts / "run", "--accelerator", "cpu")
    return beasts / "run" / "last.safetensors"


@pytest.fixture(scope="module")
def bundle(beasts, trained) -> Path:
    path = beasts / "beasts.posebundle"
    run(convert_app, trained, "--target", "onnx", "-o", path, "--golden", beasts / "images" / "1.png")
    return path


def test_bundle_carries_the_skeleton_of_the_annotation_file(bundle):
    spec = open_bundle(bundle).spec
    assert spec.skeleton.keypoints == NAMES
    assert spec.skeleton.edges == ((0, 1), (0, 2), (1, 3), (2, 4))
    assert spec.skeleton.flip_pairs == ((1, 2), (3, 4))
    assert spec.skeleton.sigmas == (0.05, 0.1, 0.1, 0.08, 0.08)
    assert spec.decode.nms_keypoints == 2


def test_bundle_passes_its_self_test(bundle):
    checks = run_selftest(open_bundle(bundle))
    assert any(check.passed and not check.skipped for check in checks)
    assert all(check.passed for check in checks if not check.skipped)


def test_detector_finds_a_beast_at_its_keypoints(beasts, bundle):
    truth = json.loads((beasts / "beasts.json").read_text())["annotations"][0]
    wanted = np.array(truth["keypoints"]).reshape(5, 3)[:, :2]
    with Detector(bundle, device="cpu") as detector:
        pose = detector(beasts / "images" / "1.png")[0]
    assert np.linalg.norm(pose.keypoints - wanted, axis=1).mean() < 0.15 * SIZE
    x, y, _ = pose.keypoint("Tail.L")
    assert (x, y) == tuple(pose.keypoints[3])


def test_command_line_writes_and_draws_five_keypoints(beasts, bundle, tmp_path):
    picture = beasts / "images" / "1.png"
    drawn, coco = tmp_path / "drawn.png", tmp_path / "coco.json"
    text = run(device_app, "detect", picture, "--model", bundle, "--json", "-", "--draw", drawn, "--coco", coco)
    (frame,) = json.loads(text)["frames"]
    assert frame["skeleton"] == "beasts"
    assert [len(person["keypoints"]) for person in frame["persons"]] == [5] * len(frame["persons"])
    assert len(frame["persons"]) > 0
    assert {len(entry["keypoints"]) for entry in json.loads(coco.read_text())} == {15}
    assert (cv2.imread(str(drawn)) != cv2.imread(str(picture))).any()


def test_supervision_gets_five_keypoints(beasts, bundle):
    pytest.importorskip("supervision", reason="the conversion is to supervision's own type")
    with Detector(bundle, device="cpu") as detector:
        poses = detector(beasts / "images" / "1.png")
    assert poses.to_supervision().xy.shape == (len(poses), 5, 2)


@pytest.mark.parametrize("measured", ["trained", "bundle"])
def test_evaluation_takes_the_skeletons_sigmas(beasts, measured, request, tmp_path):
    model, report = request.getfixturevalue(measured), tmp_path / "report.json"
    data = ("--annotations", beasts / "beasts.json", "--images", beasts / "images")
    run(training_app, "evaluate", model, *data, "--json", report, "--device", "cpu")
    stats = json.loads(report.read_text())["stats"]
    assert stats["AP50"] > 0.2


def test_thresholds_are_chosen_for_it(beasts, trained, tmp_path):
    output = tmp_path / "thresholds.safetensors"
    data = ("--annotations", beasts / "beasts.json", "--images", beasts / "images", "--device", "cpu")
    run(training_app, "calibrate", trained, *data, "-o", output)
    assert output.exists()
