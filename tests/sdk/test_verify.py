"""The float model and its variants on the same pictures, from Python and as `posesdk verify`."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.bundle import open_bundle
from posesdk.commands import app
from posesdk.labelled_pictures import read_pictures
from posesdk.manifest import Variant
from posesdk.pipeline import open_pipeline
from posesdk.skeleton import COCO_17
from posesdk.spec import InputSpec
from posesdk.speed import measure_speed
from posesdk.variants import select_variant
from posesdk.verify import Gate, Reference, measure_pipeline

RUN = CliRunner()
K = len(COCO_17)
STEP = 0.5
"""Cells of 4 net px by which the shifted variant misses every keypoint."""
PX = STEP * 4 * 128 / 64


@pytest.fixture(scope="module")
def shifted_bundle(tmp_path_factory, make_bundle) -> Path:
    """The tiny model, and a variant whose initial poses lie to the right and whose heatmaps do not bring them back."""
    root = tmp_path_factory.mktemp("verify")
    shape = np.stack([np.linspace(-4, 4, K), np.linspace(5, -5, K)], axis=1)
    make_bundle(root / "other", offsets=shape - (STEP, 0))
    (root / "bundle").mkdir()
    shutil.copytree(root / "other" / "portable", root / "bundle" / "shifted")
    variants = tuple(
        Variant(name=name, runtime=("onnxruntime",), trunk=f"{folder}/trunk.onnx", adapt=f"{folder}/adapt.onnx", **more)
        for name, folder, more in (
            ("shifted", "shifted", {"precision": "int8"}),
            ("same", "portable", {"precision": "fp16"}),
            ("portable-fp32", "portable", {}),
        )
    )
    return make_bundle(root / "bundle", variants=variants)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, spots) -> Path:
    """A folder of pictures with two people, one and none."""
    folder = tmp_path_factory.mktemp("photos")
    for name, people in (("1", [(50, 60), (140, 70)]), ("2", [(90, 60)]), ("3", [])):
        cv2.imwrite(str(folder / f"{name}.png"), spots(people))
    return folder


@pytest.fixture
def float_pipeline(shifted_bundle):
    bundle = open_bundle(shifted_bundle)
    with_float = next(one for one in select_variant(bundle.manifest) if one.variant.name == "portable-fp32")
    return open_pipeline(bundle, with_float)


@pytest.fixture
def shifted_pipeline(shifted_bundle):
    bundle = open_bundle(shifted_bundle)
    return open_pipeline(bundle, select_variant(bundle.manifest, precision="int8")[0])


@pytest.fixture
def truth(photos, float_pipeline, tmp_path) -> Path:
    """What the float model finds in the pictures, as annotations."""
    pictures = read_pictures(photos, COCO_17)
    annotations = []
    for number, estimate in enumerate(measure_pipeline(float_pipeline, pictures), start=1):
        for points, score in zip(estimate.keypoints, estimate.scores, strict=True):
            if score >= float_pipeline.spec.decode.score_threshold:
                annotations.append(_annotation(number, points))
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)]
    path = tmp_path / "keypoints.json"
    categories = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def _annotation(image_id: int, points: np.ndarray) -> dict:
    corner, size = points.min(axis=0), np.ptp(points, axis=0)
    return {
        "image_id": image_id,
        "category_id": 1,
        "num_keypoints": K,
        "keypoints": np.concatenate([points, np.full((K, 1), 2)], axis=1).ravel().tolist(),
        "bbox": [*corner.tolist(), *size.tolist()],
        "area": float(size.prod()),
    }


class Counted:
    """A graph that counts its runs, and takes some time for each."""

    def __init__(self, runtime, pause: float = 0.0):
        self.runtime, self.pause, self.runs = runtime, pause, 0
        self.inputs, self.outputs = runtime.inputs, runtime.outputs

    def run(self, feeds):
        self.runs += 1
        time.sleep(self.pause)
        return self.runtime.run(feeds)

    def close(self):
        self.runtime.close()


def test_the_float_model_does_not_deviate_from_itself(float_pipeline, photos):
    found = Reference(float_pipeline, read_pictures(photos, COCO_17)).verify(float_pipeline, timed=0)
    assert (found.deviation.images, found.deviation.people) == (3, 3)
    assert (found.deviation.missing, found.deviation.extra, found.deviation.shift_max) == (0, 0, 0)
    assert found.deviation.mean_oks == 1
    assert found.ap_drop is found.accuracy is found.speed is None


def test_a_variant_that_misses_every_keypoint_is_as_far_off_as_it_was_moved(float_pipeline, shifted_pipeline, photos):
    adaptation = float_pipeline.spec.adaptation.model_copy(update={"level": "none"})
    spec = float_pipeline.spec.model_copy(update={"adaptation": adaptation})
    wanted, moved = (replace(one, spec=spec) for one in (float_pipeline, shifted_pipeline))
    deviation = Reference(wanted, read_pictures(photos, COCO_17)).verify(moved, timed=0).deviation
    assert deviation.shift_median == pytest.approx(PX, abs=0.01)
    assert deviation.people == 3


def test_pictures_without_people_show_nothing(float_pipeline, spots, tmp_path, shifted_bundle):
    cv2.imwrite(str(tmp_path / "empty.png"), spots([]))
    found = Reference(float_pipeline, read_pictures(tmp_path, COCO_17)).verify(float_pipeline, timed=0)
    assert found.is_empty
    done = RUN.invoke(app, ["verify", str(shifted_bundle), "--data", str(tmp_path)])
    assert done.exit_code == 0
    assert "nobody: the float model finds nobody" in done.stdout
    assert not re.search(r" ok$", done.stdout, re.MULTILINE)


class Paler:
    """A trunk whose heatmaps are a part of what they were: the same poses, with lower scores."""

    def __init__(self, runtime, share):
        self.runtime, self.share = runtime, share
        self.inputs, self.outputs = runtime.inputs, runtime.outputs

    def run(self, feeds):
        found = self.runtime.run(feeds)
        return found | {"heatmaps": self.share * found["heatmaps"]}

    def close(self):
        self.runtime.close()


def test_scores_that_carry_people_over_the_threshold_miss_the_gate(float_pipeline, photos):
    decode = float_pipeline.spec.decode.model_copy(update={"score_threshold": 0.06, "center_threshold": 0.0})
    wanted = replace(float_pipeline, spec=float_pipeline.spec.model_copy(update={"decode": decode}))
    paler = replace(wanted, trunk=Paler(wanted.trunk, 0.5))
    pictures = read_pictures(photos, COCO_17)
    found = Reference(wanted, pictures).verify(paler, timed=0)
    assert (found.deviation.people, found.deviation.fallen, found.deviation.risen) == (3, 3, 0)
    assert found.deviation.mean_oks > 0.99
    assert Gate().fault(found).startswith("scores are others: 3 fewer people reach the threshold")
    assert Gate(max_lost=1).fault(found) is None
    back = Reference(paler, pictures).verify(wanted, timed=0)
    assert Gate().fault(back).startswith("scores are others: 3 more people reach the threshold")


def test_the_float_model_runs_once_for_each_input_size(float_pipeline, photos):
    counted = replace(float_pipeline, trunk=Counted(float_pipeline.trunk))
    reference = Reference(counted, read_pictures(photos, COCO_17))
    for _ in range(3):
        reference.verify(float_pipeline, timed=0)
    assert counted.trunk.runs == 3
    fixed = InputSpec(resize="fixed", size=(64, 128))
    other = replace(float_pipeline, spec=float_pipeline.spec.model_copy(update={"input": fixed}))
    found = reference.verify(other, timed=0)
    assert counted.trunk.runs == 6
    assert found.deviation.shift_max == 0


def test_each_model_reads_the_pictures_once(float_pipeline, shifted_pipeline, photos):
    read = []

    class Watched:
        def __iter__(self):
            for name, image in read_pictures(photos, COCO_17):
                read.append(name)
                yield name, image

    found = Reference(float_pipeline, Watched()).verify(shifted_pipeline, timed=0)
    assert read == ["1.png", "2.png", "3.png"] * 2
    assert sorted(name for name, _ in found.deviations.worst(3)) == ["1.png", "2.png", "3.png"]


def test_a_graph_of_fixed_size_stays_at_it(float_pipeline, photos):
    trunk = Counted(float_pipeline.trunk)
    trunk.inputs = (replace(trunk.inputs[0], shape=(1, 64, 64, 3)),)
    reference = Reference(replace(float_pipeline, trunk=trunk), read_pictures(photos, COCO_17))
    fixed = float_pipeline.spec.model_copy(update={"input": InputSpec(resize="fixed", size=(64, 128))})
    assert reference.pipeline(fixed).spec.input == float_pipeline.spec.input


def test_speed_is_that_of_the_graph(float_pipeline, photos):
    slow = replace(float_pipeline, trunk=Counted(float_pipeline.trunk, pause=0.03))
    images = [image for _, image in read_pictures(photos, COCO_17)]
    fast_speed, slow_speed = measure_speed((float_pipeline, slow), images)
    assert slow_speed.trunk >= 30 > slow_speed.adapt
    assert slow_speed.total >= slow_speed.trunk
    assert slow_speed.trunk_cpu < 30  # it sleeps
    assert fast_speed.trunk_cpu > 0


def test_accuracy_of_the_float_model_on_its_own_poses_is_perfect_and_that_of_others_drops(
    float_pipeline, shifted_pipeline, truth, photos
):
    pictures = read_pictures(truth, COCO_17, images=photos)
    found = Reference(float_pipeline, pictures, pictures.labels).verify(shifted_pipeline, timed=0)
    assert found.float_accuracy.stats["AP"] == pytest.approx(1)
    assert found.ap_drop == pytest.approx(100 * (1 - found.accuracy.stats["AP"]))
    assert found.ap_drop > 10


def test_accuracy_on_real_photos_is_that_of_the_evaluation(shared):
    pytest.importorskip("pycocotools", reason="the evaluation is measured by pycocotools")
    pytest.importorskip("torch", reason="the evaluation belongs to the training package")
    from posesdk.bundle import default_bundle_path
    from posesdk_training.evaluated_model import EvaluatedModel
    from posesdk_training.evaluation.measure import Measurement, measure

    path = shared("data", "coco_eval", "keypoints.json")
    bundle = open_bundle(default_bundle_path())
    pipeline = open_pipeline(bundle, select_variant(bundle.manifest, runtime="onnxruntime", device="cpu")[0])
    pictures = read_pictures(path, bundle.spec.skeleton, limit=6)
    found = Reference(pipeline, pictures, pictures.labels).found(pipeline.spec)[1]
    model = EvaluatedModel("nano", "float", pipeline, "onnxruntime", "cpu", "fp32")
    report, _ = measure(model, path, path.parent / "images", Measurement(limit=6))
    assert found.stats == pytest.approx(report["stats"], abs=1e-6)
    alike = {row["name"]: row["oks"] for row in report["keypoints"]["rows"]}
    assert found.keypoints == pytest.approx({name: alike[name] for name in found.keypoints}, abs=1e-5)


@pytest.mark.parametrize(
    ("gate", "labelled", "message"),
    [
        pytest.param(Gate(), True, "AP drops by .* 1 are allowed", id="ap"),
        pytest.param(Gate(max_ap_drop=100), True, None, id="ap-that-may-drop"),
        pytest.param(Gate(max_ap_drop=100, min_oks=0.999), True, "mean OKS", id="oks-beside-ap"),
        pytest.param(Gate(), False, "mean OKS with the float poses is 0.*, 0.9 is needed", id="oks"),
        pytest.param(Gate(min_oks=0.0), False, None, id="oks-that-may-be-anything"),
    ],
)
def test_the_gate_says_what_a_variant_misses(float_pipeline, shifted_pipeline, truth, photos, gate, labelled, message):
    pictures = read_pictures(truth, COCO_17, images=photos)
    reference = Reference(float_pipeline, pictures, pictures.labels if labelled else None)
    fault = gate.fault(reference.verify(shifted_pipeline, timed=0))
    if message is None:
        assert fault is None
    else:
        assert fault is not None
        assert re.search(message, fault)


def verify(*arguments):
    return RUN.invoke(app, ["verify", *map(str, arguments)])


def test_the_command_shows_a_table_and_ends_with_5_where_a_variant_misses_the_gate(
    shifted_bundle, truth, photos, tmp_path
):
    report = tmp_path / "report.json"
    done = verify(shifted_bundle, "--data", truth, "--images", photos, "--json", report)
    assert done.exit_code == 5
    assert "shifted with onnxruntime on cpu: AP drops by" in done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["shifted"][-1] == "MISSED"
    assert rows["same"][-1] == "ok"
    assert rows["same"][3:5] == ["100.00", "(+0.00)"]
    assert "portable-fp32" not in rows  # compared with itself it tells nothing
    data = json.loads(report.read_text())
    assert [entry["variant"] for entry in data["variants"]] == ["shifted", "same"]
    assert [entry["passed"] for entry in data["variants"]] == [False, True]
    assert data["passed"] is False
    assert data["variants"][1]["ms"]["trunk"] > 0
    assert data["data"] == {"source": str(truth), "images": 3, "labelled": True, "people": 3}
    assert list(tmp_path.glob(".*")) == []


def test_only_what_is_asked_for_is_verified(shifted_bundle, photos):
    done = verify(shifted_bundle, "--data", photos, "--precision", "fp16", "--limit", "2", "--json", "-")
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert [entry["variant"] for entry in data["variants"]] == ["same"]
    assert data["variants"][0]["accuracy"] is None
    assert data["variants"][0]["deviation"]["people"] == 3
    assert "2 pictures of" in done.stderr


def test_a_bundle_with_nothing_but_its_float_graphs_is_verified_on_the_other_backends(tiny_bundle, photos):
    pytest.importorskip("openvino", reason="the second backend is OpenVINO")
    done = verify(tiny_bundle, "--data", photos)
    assert done.exit_code == 0
    assert "openvino cpu" in done.stdout
    assert "onnxruntime cpu " not in done.stdout


def test_data_that_cannot_be_read_ends_with_6(shifted_bundle, tmp_path, photos):
    for data, more in ((tmp_path / "none.json", ()), (tmp_path, ()), (photos, ("--images", str(photos)))):
        done = verify(shifted_bundle, "--data", data, *more)
        assert done.exit_code == 6
        assert len(done.stderr.splitlines()) == 1


def test_a_bundle_that_nothing_here_runs_ends_with_3(tmp_path, make_bundle, photos):
    variant = Variant(name="x", runtime=("toaster",), trunk="portable/trunk.onnx", adapt="portable/adapt.onnx")
    done = verify(make_bundle(tmp_path / "bundle", variants=(variant,)), "--data", photos)
    assert done.exit_code == 3
    assert "toaster" in done.stderr


def test_a_variant_whose_backend_fails_misses_the_gate_and_the_others_are_told(tmp_path, make_bundle, photos):
    onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")
    folder = make_bundle(tmp_path / "bundle")
    shutil.copytree(folder / "portable", folder / "broken")
    model = onnx.load(folder / "broken" / "trunk.onnx")
    weights = next(entry for entry in model.graph.initializer if entry.name == "bias")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), "bias"))
    onnx.save(model, folder / "broken" / "trunk.onnx")
    more = {"runtime": ("onnxruntime",), "adapt": "portable/adapt.onnx"}
    broken = Variant(name="broken", trunk="broken/trunk.onnx", precision="fp16", **more)
    same = Variant(name="same", trunk="portable/trunk.onnx", **more)
    other = Variant(name="portable-fp32", trunk="portable/trunk.onnx", **more)
    done = verify(
        make_bundle(folder, variants=(broken, same, other)), "--data", photos, "--json", tmp_path / "all.json"
    )
    assert done.exit_code == 5
    assert (
        "FAILED broken with onnxruntime on cpu: the heatmaps of the trunk hold values that are not finite"
        in done.stdout
    )
    assert done.stdout.count(" ok\n") == 1
    assert [entry["passed"] for entry in json.loads((tmp_path / "all.json").read_text())["variants"]] == [False, True]


def test_wrong_usage_ends_with_2(shifted_bundle, photos):
    assert verify(shifted_bundle).exit_code == 2
    assert verify(shifted_bundle, "--data", photos, "--runtime", "toaster").exit_code == 2
    assert verify(shifted_bundle, "--data", photos, "--precision", "bf16").exit_code == 2


def test_a_report_that_cannot_be_written_is_told_before_the_work(shifted_bundle, photos, tmp_path):
    done = verify(shifted_bundle, "--data", photos, "--json", tmp_path)
    assert done.exit_code == 1
    assert "it is a folder" in done.stderr
