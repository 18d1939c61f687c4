import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from posesdk.bundle import open_bundle
from posesdk.commands import app as detect_app
from posesdk.detector import Detector
from posesdk.selftest import run_selftest
from posesdk.spec import STRIDE
from posesdk_converters import portable
from posesdk_converters.program import app
from posesdk_converters.verification import parity
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint


def run(*arguments, cli=app):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def imported(tmp_path_factory, reference, tiny_picture):
    """The tiny reference weights in the published layout, converted as a user would."""
    folder = tmp_path_factory.mktemp("imported")
    weights = {key: torch.tensor(value) for key, value in reference("tiny_weights_fp16").items()}
    torch.save(weights, folder / "tiny.pth")
    bundle = folder / "tiny.posebundle"
    source = ("--from-logocap", folder / "tiny.pth", "--short-side", 64)
    result = run(*source, "--target", "onnx", "-o", bundle, "--golden", tiny_picture)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(bundle)
    return bundle


def test_imported_checkpoint_gives_the_published_poses_of_a_picture(imported, reference, tmp_path):
    arrays = reference("tiny_A_default_decoder")
    picture = tmp_path / "image.png"
    cv2.imwrite(str(picture), arrays["image_bgr_u8"])
    result = run("detect", picture, "--model", imported, "--json", "-", cli=detect_app)
    assert result.exit_code == 0, result.output
    persons = json.loads(result.stdout)["frames"][0]["persons"]
    order = np.argsort(-arrays["image_scores_after_nms"], kind="stable")
    wanted = arrays["image_poses_after_nms"][order]
    found = np.array([person["keypoints"] for person in persons])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found[..., :2], wanted[..., :2], atol=1e-3)
    np.testing.assert_allclose(found[..., 2], wanted[..., 2], atol=1e-5)
    scores = [person["score"] for person in persons]
    np.testing.assert_allclose(scores, arrays["image_scores_after_nms"][order], atol=1e-6)


def test_imported_bundle_carries_the_published_switches(imported):
    manifest = open_bundle(imported).manifest
    assert (manifest.model.frame, manifest.model.convention) == ("published", "published")
    assert manifest.model.decode.flip_test
    assert [variant.name for variant in manifest.variants] == ["portable-fp32"]
    assert manifest.provenance["imported_from"] == "tiny.pth"


def test_bundle_holds_what_the_target_needs(converted_bundle):
    bundle = open_bundle(converted_bundle)
    assert {file.path for file in bundle.manifest.files} == {
        "portable/trunk.onnx",
        "portable/adapt.onnx",
        "cpu-fp32/trunk.xml",
        "cpu-fp32/trunk.bin",
        "cpu-fp32/adapt.xml",
        "cpu-fp32/adapt.bin",
        "golden/image.png",
        "golden/expected.json",
        "reports/conversion.json",
    }
    assert [variant.runtime_precision for variant in bundle.manifest.variants] == ["f32", "f32"]
    assert bundle.manifest.licence.training_data == ("none",)
    report = json.loads(bundle.read("reports/conversion.json"))
    assert {entry["variant"] for entry in report["parity"]} == {"cpu-fp32", "portable-fp32"}
    assert [entry["name"] for entry in report["variants"]] == ["cpu-fp32", "portable-fp32"]


def test_self_test_of_a_converted_bundle_passes(converted_bundle):
    checks = run_selftest(open_bundle(converted_bundle))
    assert len(checks) == 3
    assert all(check.passed and check.people > 0 for check in checks), [check.summary for check in checks]


def test_golden_poses_are_those_of_the_detector(converted_bundle, tiny_picture):
    golden = open_bundle(converted_bundle).golden()
    poses = Detector(converted_bundle, runtime="onnxruntime")(tiny_picture)
    np.testing.assert_allclose(poses.keypoints, golden.keypoints, atol=0.05)
    np.testing.assert_allclose(poses.scores, golden.scores, atol=1e-5)


def test_fixed_size_name_version_and_accuracy_reach_the_manifest(tiny_checkpoint, tiny_picture, tmp_path):
    accuracy = tmp_path / "accuracy.json"
    entry = {"variant": "float", "dataset": "ten photos", "images": 10, "metrics": {"AP": 0.25}}
    accuracy.write_text(json.dumps(entry))
    output = tmp_path / "deep" / "out.posebundle"
    options = ("--input-size", "64x96", "--name", "mine", "--version", "2.1", "--accuracy", accuracy)
    result = run(tiny_checkpoint, "--target", "onnx", "-o", output, "--golden", tiny_picture, *options)
    assert result.exit_code == 0, result.output
    manifest = open_bundle(output).manifest
    assert (manifest.id, manifest.version) == ("mine", "2.1")
    assert manifest.variants[0].input_size == (64, 96)
    assert manifest.accuracy[0].metrics == {"AP": 0.25}
    with Detector(output, runtime="onnxruntime") as detector:
        assert detector(tiny_picture).image_size == (90, 120)
    assert manifest.model.stride == STRIDE


@pytest.mark.parametrize("switch", [{"level": "none"}, {"prior": "kem"}], ids=["level none", "kem alone"])
def test_model_without_attraction_maps_has_one_graph(tiny_checkpoint, tiny_picture, tmp_path, switch):
    source = load_checkpoint(tiny_checkpoint)
    adaptation = source.spec.adaptation.model_copy(update=switch)
    spec = source.spec.model_copy(update={"adaptation": adaptation})
    save_checkpoint(tmp_path / "plain.safetensors", source.state_dict, spec)
    output = tmp_path / "plain.posebundle"
    options = ("--target", "cpu", "--input-size", "64x96", "--golden", tiny_picture)
    result = run(tmp_path / "plain.safetensors", *options, "-o", output)
    assert result.exit_code == 0, result.output
    bundle = open_bundle(output)
    assert not [file.path for file in bundle.manifest.files if "adapt" in file.path]
    checks = run_selftest(bundle)
    assert len(checks) == 3
    assert all(check.passed and check.people > 0 for check in checks), [check.summary for check in checks]


def test_a_shipped_model_is_converted_by_its_name(models, tiny_checkpoint, converted_bundle, tiny_picture, tmp_path):
    (models / "little.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    (models / "little.posebundle").write_bytes(converted_bundle.read_bytes())
    for name in ("little", "tiny"):  # of the files, and the model's own
        output = tmp_path / f"{name}.posebundle"
        result = run(name, "--target", "onnx", "--golden", tiny_picture, "-o", output)
        assert result.exit_code == 0, result.output
        assert open_bundle(output).spec == load_checkpoint(tiny_checkpoint).spec


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none.safetensors", "--target", "onnx"), 4, "cannot convert none.safetensors: there is no such file"),
        (("no-model", "--target", "onnx"), 4, "no model of that name comes with posesdk: it has dac-nano, default"),
        (("--from-logocap", "none.pth", "--target", "onnx"), 4, "none.pth: no such file"),
        (("--target", "onnx"), 2, "either a SOURCE or --from-logocap"),
        (("a", "--from-logocap", "b", "--target", "onnx"), 2, "either a SOURCE or --from-logocap"),
        (("a", "--target", "onnx", "--short-side", "64"), 2, "--short-side goes with --from-logocap only"),
        (("--from-logocap", "b", "--target", "onnx", "--global-window", "96"), 2, "96: must be odd"),
        (("CHECKPOINT", "--target", "toaster"), 2, "no target 'toaster'"),
        (("CHECKPOINT", "--target", ","), 2, "no target; known: cpu, "),
        (("CHECKPOINT", "--target", "onnx", "--precision", "bf16"), 2, "target onnx is made in fp32, int8 only"),
        (("CHECKPOINT", "--target", "cpu", "--precision", "fp33"), 2, "--precision fp33: expected"),
        (
            ("CHECKPOINT", "--target", "onnx", "--precision", "int8", "--precision", "fp32"),
            2,
            "int8 needs calibration images",
        ),
        (("CHECKPOINT", "--target", "cpu", "--input-size", "100x64"), 2, "multiples of 32"),
        (("CHECKPOINT", "--target", "cpu", "--input-size", "big"), 2, "expected HEIGHTxWIDTH"),
        (
            ("CHECKPOINT", "--target", "cpu,mobile", "--fused"),
            2,
            "none of cpu:fp32, mobile:fp32 can be fused, only cuda",
        ),
        (("CHECKPOINT", "--target", "cpu:fp16", "--fused"), 2, "jetson (fp16, fp32); leave --fused out"),
        (("CHECKPOINT", "--target", "cpu", "--name", "a/b"), 2, "name 'a/b': expected"),
        (("CHECKPOINT", "--target", "cpu", "--version", ""), 2, "version '': expected"),
        (("CHECKPOINT", "--target", "cpu", "--golden", "none.png"), 6, "cannot read image none.png"),
        (("CHECKPOINT", "--target", "cpu", "--accuracy", "none.json"), 6, "none.json: cannot be read"),
    ],
)
def test_fault_is_one_line_with_its_exit_code(tiny_checkpoint, tmp_path, arguments, code, said):
    output = tmp_path / "out.posebundle"
    words = [tiny_checkpoint if word == "CHECKPOINT" else word for word in arguments]
    result = run(*words, "-o", output)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "file/out.posebundle"])
def test_output_that_cannot_be_written_is_said_before_the_work(tiny_checkpoint, tmp_path, place, monkeypatch):
    monkeypatch.setattr(portable, "export_trunk", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    result = run(tiny_checkpoint, "--target", "onnx", "-o", tmp_path / place)
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / place}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_accuracy_of_another_form_is_refused(tiny_checkpoint, tmp_path):
    accuracy = tmp_path / "accuracy.json"
    accuracy.write_text('{"AP": 0.5}')
    result = run(tiny_checkpoint, "--target", "onnx", "-o", tmp_path / "out.posebundle", "--accuracy", accuracy)
    assert result.exit_code == 4
    assert "accuracy.json: not a list of objects" in result.stderr


def test_bundle_that_fails_the_gate_is_not_written(
    tiny_checkpoint, converted_bundle, tiny_picture, tmp_path, monkeypatch
):
    graphs = open_bundle(converted_bundle)  # already exported, to save the time
    for name in ("trunk", "adapt"):
        content = graphs.read(f"portable/{name}.onnx")
        monkeypatch.setattr(
            portable, f"export_{name}", lambda model, path, content=content, **_: path.write_bytes(content)
        )
    monkeypatch.setattr(parity, "FRACTION", 1.1)
    output = tmp_path / "out.posebundle"
    result = run(tiny_checkpoint, "--target", "onnx", "-o", output, "--golden", tiny_picture)
    assert result.exit_code == 5
    assert "variant portable-fp32 on onnxruntime" in result.stderr
    assert list(tmp_path.iterdir()) == []
