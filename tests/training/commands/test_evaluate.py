import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.manifest import Accuracy
from posesdk.skeleton import COCO_17
from posesdk_training.evaluated_model import EvaluatedModel, open_model
from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.keypoints import STATS
from posesdk_training.evaluation.predict import predict
from posesdk_training.program import app


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder `three` with three pictures; two labelled persons on the first."""
    folder = tmp_path_factory.mktemp("data") / "three"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        blocks = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        cv2.imwrite(str(folder / f"{number}.png"), blocks)
    persons = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "num_keypoints": 17,
            "keypoints": np.concatenate([rng.uniform(0, 90, (17, 2)), np.full((17, 1), 2.0)], axis=1).ravel().tolist(),
            "area": 3000.0,
            "bbox": [0.0, 0.0, 90.0, 90.0],
        }
        for number in (1, 2)
    ]
    tree = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)],
        "annotations": persons,
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "truth.json").write_text(json.dumps(tree))
    return folder


def run(model, data, *options):
    arguments = ["evaluate", model, "--annotations", data / "truth.json", "--images", data, "--device", "cpu", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_figures_go_to_stdout_and_conditions_to_the_file(tiny_checkpoint, data, tmp_path):
    report = tmp_path / "report.json"
    done = run(tiny_checkpoint, data, "--json", report, "--no-people", data, "--flip", "--adaptation", "none")
    assert done.exit_code == 0, done.output
    assert all(name in done.stdout for name in STATS)
    assert done.stderr == ""
    found = json.loads(report.read_text())
    assert found["data"]["image_ids"] == [1, 2, 3]
    assert (found["data"]["images"], found["data"]["persons"]) == (3, 2)
    assert found["stats"].keys() <= set(STATS)
    conditions = found["conditions"]
    assert (conditions["flip_test"], conditions["adaptation"], conditions["runtime"]) == (True, "none", "torch")
    assert conditions["versions"]["pycocotools"]
    assert found["false_positives"]["images"] == 3


def test_every_figure_comes_from_one_command(tiny_checkpoint, data, tmp_path):
    path = tmp_path / "report.json"
    done = run(tiny_checkpoint, data, "--json", path, "--no-people", data, "--oracle-window", 11)
    assert done.exit_code == 0, done.output
    for title in ("boxes, precision", "best of 11 x 11 places", "without people"):
        assert title in done.stdout
    report = json.loads(path.read_text())
    assert report["protocol"] == "coco"
    assert [(row["area_mode"], row["expand"]) for row in report["boxes"]] == [
        ("bbox", 0.0),
        ("bbox", 0.25),
        ("ann", 0.0),
        ("ann", 0.25),
    ]
    assert [row["name"] for row in report["keypoints"]["rows"]] == [*COCO_17.keypoints, "all"]
    assert [row["group"] for row in report["recall"]] == ["all", "large", "large_whole", "tall"]
    assert {row["persons"] for row in report["recall"] if row["group"] == "all"} == {2}
    bound = report["upper_bound"]
    assert (bound["window"], bound["images"], bound["persons"]) == (11, 1, 2)
    assert bound["bounds"].keys() == {"window_sum", "attainable"}
    assert all(found["oks_after"] >= found["oks_before"] for found in bound["bounds"].values())
    assert bound["model"].keys() == bound["initial"].keys() == report["stats"].keys()


@pytest.mark.parametrize("backend", ["pycocotools", "faster"])
def test_ochuman_is_evaluated_by_both_backends(tiny_checkpoint, data, tmp_path, backend):
    if backend == "faster":
        pytest.importorskip("faster_coco_eval", reason="the cross-check needs faster-coco-eval")
    path = tmp_path / "report.json"
    done = run(tiny_checkpoint, data, "--json", path, "--protocol", "ochuman", "--backend", backend)
    assert done.exit_code == 0, done.output
    report = json.loads(path.read_text())
    assert report["protocol"] == "ochuman"
    evaluator = report["conditions"]["evaluator"]
    assert report["conditions"]["versions"][evaluator]
    assert evaluator == {"pycocotools": "pycocotools", "faster": "faster-coco-eval"}[backend]


def test_several_input_sizes_stand_among_the_conditions(tiny_checkpoint, data, tmp_path):
    path = tmp_path / "report.json"
    assert run(tiny_checkpoint, data, "--json", path, "--scales", "0.5,1,2").exit_code == 0
    assert json.loads(path.read_text())["conditions"]["scales"] == [0.5, 1.0, 2.0]


def test_limit_takes_the_first_images(tiny_checkpoint, data, tmp_path):
    results = tmp_path / "results.json"
    assert run(tiny_checkpoint, data, "--limit", 2, "--min-score", 0, "--results", results).exit_code == 0
    assert {entry["image_id"] for entry in json.loads(results.read_text())} == {1, 2}


def test_accuracy_is_what_a_manifest_takes(tiny_checkpoint, data, tmp_path):
    accuracy = tmp_path / "accuracy.json"
    assert run(tiny_checkpoint, data, "--accuracy", accuracy).exit_code == 0
    entry = Accuracy.model_validate(json.loads(accuracy.read_text()))
    assert (entry.variant, entry.dataset, entry.images) == ("float", "three-3", 3)
    assert "2 labelled persons" in entry.note


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_bundle_finds_what_its_checkpoint_finds(tiny_checkpoint, converted_bundle, data, runtime):
    images = load_ground_truth(data / "truth.json").image_list(data)
    with open_model(tiny_checkpoint, device="cpu") as model:
        expected = predict(model, images, min_score=0.0).results
    with open_model(converted_bundle, runtime=runtime, device="cpu") as model:
        found = predict(model, images, min_score=0.0).results
        assert model.runtime == runtime
    assert len(expected) > 0
    for image_id, _ in images:
        ours, theirs = ([r for r in found_by if r["image_id"] == image_id] for found_by in (found, expected))
        assert [r["score"] for r in ours] == pytest.approx([r["score"] for r in theirs], abs=1e-4)


def test_adaptation_of_a_bundle_can_be_switched_off(converted_bundle, data):
    images = load_ground_truth(data / "truth.json").image_list(data)
    with open_model(converted_bundle, device="cpu", adaptation="none") as model:
        without = predict(model, images, min_score=0.0).results
    with open_model(converted_bundle, device="cpu") as model:
        assert predict(model, images, min_score=0.0).results != without


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--runtime", "openvino"), 2, "torch"),
        (("--oracle-window", "10"), 2, "must be odd"),
        (("--oracle-window", "11", "--scales", "1,2"), 2, "one scale"),
        (("--scales", "large"), 2, "0.5,1,1.5,2"),
        (("--scales", "0"), 2, "from 0.1 to 8"),
        (("--protocol", "crowdpose"), 1, "CrowdPose has 14 keypoints"),
        (("--no-people", "/nowhere"), 1, "no pictures"),
        (("--json", "/nowhere/at/all.json"), 1, "no folder"),
        (("--annotations", "/nowhere.json"), 1, "no such file; check --annotations"),
        (("--images", "/nowhere"), 1, "truth.json are not in /nowhere, such as /nowhere/1.png; check --images"),
    ],
)
def test_faults_end_in_one_line_and_their_exit_code(tiny_checkpoint, data, options, code, message):
    done = run(tiny_checkpoint, data, *options)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("option", "place", "message"), [("--json", ".", "it is a folder"), ("--report", "file", "it is a file")]
)
def test_place_that_cannot_be_written_is_said_before_the_measurement(
    tiny_checkpoint, data, tmp_path, monkeypatch, option, place, message
):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(EvaluatedModel, "detect", lambda *_: pytest.fail("detects"))
    done = run(tiny_checkpoint, data, option, tmp_path / place)
    assert done.exit_code == 1, done.output
    assert message in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "kept")]


def test_missing_image_is_said_before_anything_is_detected(tiny_checkpoint, data, tmp_path, monkeypatch):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes((data / f"{number}.png").read_bytes())
    monkeypatch.setattr(EvaluatedModel, "detect", lambda *_: pytest.fail("detects"))
    done = run(tiny_checkpoint, data, "--images", tmp_path)
    assert done.exit_code == 1, done.output
    assert "1 of 3 images" in done.stderr
    assert "3.png; check --images" in done.stderr


def test_missing_model_is_named(data, tmp_path):
    done = run(tmp_path / "absent.safetensors", data)
    assert done.exit_code == 4
    assert "absent.safetensors" in done.stderr
