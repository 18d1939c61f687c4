"""The whole conversion, with a target that is one file of the test's own."""

import errno
import json
import re
import textwrap

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from posesdk.bundle import open_bundle
from posesdk.pipeline import open_pipeline
from posesdk.spec import DecodeSpec
from posesdk.variants import select_variant
from posesdk.verify import Gate
from posesdk_converters import package, portable, targets
from posesdk_converters.calibration import FEWEST_IMAGES, read_calibration
from posesdk_converters.program import app
from posesdk_converters.request import Request, planned
from posesdk_converters.verification.sensitivity import layers_of
from posesdk_runtimes.errors import SourceError
from posesdk_training.checkpoint import load_checkpoint, save_checkpoint

TARGET = """
    '''The portable graphs, of which int8 spoils the layers of the stem unless they stay in float.'''

    import onnx
    from onnx import numpy_helper

    from posesdk.manifest import Variant
    from posesdk_converters.verification.sensitivity import layers_of

    SUMMARY = "a toy"
    PRECISIONS = ("fp32", "int8")

    def convert(conversion, precision, *, float_layers={}):
        folder = conversion.folder / f"toy-{precision}"
        folder.mkdir(exist_ok=True)
        model = onnx.load(conversion.folder / conversion.portable.trunk)
        spoiled = layers_of(model)[:3] if precision == "int8" else []
        kept = float_layers.get("trunk", ())
        for node in spoiled:
            if node.name in kept:
                continue
            weight = next(value for value in model.graph.initializer if value.name == node.input[1])
            values = numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(values[::-1].copy(), weight.name))
        onnx.save(model, folder / "trunk.onnx")
        return (
            Variant(
                name=f"toy-{precision}", runtime=("onnxruntime",), precision=precision,
                trunk=f"toy-{precision}/trunk.onnx", adapt=conversion.portable.adapt,
                float_layers=tuple(name for names in float_layers.values() for name in names),
            ),
        )
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A target called toy."""
    folder = tmp_path / "targets"
    folder.mkdir()
    (folder / "toy.py").write_text(textwrap.dedent(TARGET))
    monkeypatch.setattr(targets, "__path__", [*targets.__path__, str(folder)])


@pytest.fixture
def exported(converted_bundle, monkeypatch):
    """The export is left out: the graphs are there."""
    graphs = open_bundle(converted_bundle)
    for name in ("trunk", "adapt"):
        content = graphs.read(f"portable/{name}.onnx")
        monkeypatch.setattr(
            portable, f"export_{name}", lambda model, path, content=content, **_: path.write_bytes(content)
        )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of eight pictures of coloured blocks."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    for index in range(8):
        blocks = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        cv2.imwrite(str(folder / f"{index}.png"), blocks)
    return folder


@pytest.fixture(scope="module")
def labels(pictures, converted_bundle, tmp_path_factory):
    """A COCO file that labels in these pictures what the float model finds, so that its AP is high."""
    bundle = open_bundle(converted_bundle)
    candidate = select_variant(bundle.manifest, runtime="onnxruntime", device="cpu")[0]
    pipeline = open_pipeline(bundle, candidate, DecodeSpec(max_people=3, score_threshold=0.0))
    images, annotations = [], []
    for number, path in enumerate(sorted(pictures.iterdir()), start=1):
        images.append({"id": number, "file_name": path.name, "width": 120, "height": 90})
        for points in pipeline.run(cv2.imread(str(path))).keypoints.tolist():
            width, height = np.ptp(points, axis=0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "num_keypoints": len(points),
                    "keypoints": [value for x, y in points for value in (x, y, 2)],
                    "bbox": [*np.min(points, axis=0).tolist(), width, height],
                    "area": width * height,
                }
            )
    names = list(bundle.spec.skeleton.keypoints)
    tree = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }
    path = tmp_path_factory.mktemp("labels") / "keypoints.json"
    path.write_text(json.dumps(tree))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def convert(exported, toy, tiny_checkpoint, tiny_picture, tmp_path):
    """`convert(*options)`: the result of the command, the bundle's path and the report's."""

    def call(*options, source=tiny_checkpoint, first=("--target", "toy")):
        output = tmp_path / "out" / "toy.posebundle"
        result = run(source, *first, "-o", output, "--golden", tiny_picture, *options)
        return result, output, output.with_name("toy-report")

    return call


@pytest.fixture
def no_selftest(monkeypatch):
    """Bad int8 is let through, to see what else is made of it."""
    monkeypatch.setattr(package, "require_selftest", lambda *_: ())


INT8 = ("--precision", "int8", "--allow-few-images", "--calibration")


def test_target_that_is_one_new_file_is_found_converted_and_verified(convert):
    result, output, report = convert()
    assert result.exit_code == 0, result.output
    assert [variant.name for variant in open_bundle(output).manifest.variants] == ["toy-fp32", "portable-fp32"]
    spent = json.loads((report / "times.json").read_text())["toy-fp32"]["ms"]["trunk_cpu"]
    assert re.search(rf"\| toy-fp32 .*\| {spent:.2f} \(\d+\.\dx\) \|", (report / "report.md").read_text())
    assert "toy-fp32" in result.stderr


def test_int8_that_misses_the_gate_gets_its_most_sensitive_layers_back_in_float(convert, pictures, converted_bundle):
    result, output, report = convert(*INT8, pictures, "--min-oks", "0.99")
    assert result.exit_code == 0, result.output
    bundle = open_bundle(output)
    kept = bundle.manifest.variants[0].float_layers
    model = onnx.load(open_bundle(converted_bundle).local_path("portable/trunk.onnx"))
    assert {node.name for node in layers_of(model)[:3]} <= set(kept)
    figures = json.loads(bundle.read("reports/conversion.json"))
    assert figures["variants"][0]["float_layers"] == list(kept)
    assert figures["variants"][0]["deviation"]["mean_oks"] >= 0.99
    assert len(figures["sensitivity"]) >= len(kept)
    for layer in kept:
        assert layer in (report / "report.md").read_text()


def test_variant_that_misses_the_gate_leaves_a_report_and_no_bundle(convert, pictures, monkeypatch):
    monkeypatch.setattr("posesdk_converters.verification.judge.rank_layers", lambda *_, **__: ())
    result, output, report = convert(*INT8, pictures)
    assert result.exit_code == 5
    assert "toy-int8: mean OKS with the float poses is" in result.stderr
    assert str(report) in result.stderr
    assert not output.exists()
    figures = json.loads((report / "conversion.json").read_text())
    assert figures["variants"][0]["fault"]
    assert "MISSED" in (report / "report.md").read_text()
    drawn = sorted(path.name for path in report.glob("*.jpg"))
    assert drawn == ["toy-int8-worst-1.jpg", "toy-int8-worst-2.jpg"]
    assert cv2.imread(str(report / drawn[0])).shape == (360, 960, 3)
    assert [path.name for path in output.parent.iterdir()] == [report.name]


def test_int8_is_refused_where_the_float_model_finds_nobody(convert, pictures, tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    decode = checkpoint.spec.decode.model_copy(update={"score_threshold": 1.0})
    blind = checkpoint.spec.model_copy(update={"decode": decode})
    save_checkpoint(tmp_path / "blind.safetensors", checkpoint.state_dict, blind)
    result, output, report = convert(*INT8, pictures, source=tmp_path / "blind.safetensors")
    assert result.exit_code == 5
    assert "toy-int8: the float model finds nobody in 8 of the calibration images" in result.stderr
    assert (report / "report.md").is_file()
    assert [path.name for path in output.parent.iterdir()] == [report.name]


def test_full_disk_is_one_line_and_leaves_nothing(convert, monkeypatch):
    def fill(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("posesdk_converters.package.make_variants", fill)
    result, output, _ = convert()
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"posesdk: error: cannot convert into {output.parent}: No space left on device; free some space there\n"
    )
    assert list(output.parent.iterdir()) == []


def test_gate_is_about_ap_where_there_are_labels(convert, pictures, labels, no_selftest, monkeypatch):
    monkeypatch.setattr("posesdk_converters.verification.judge.rank_layers", lambda *_, **__: ())
    options = (*INT8, pictures, "--evaluate", labels, "--images", pictures)
    result, output, report = convert(*options)
    assert result.exit_code == 5
    assert "AP drops by" in result.stderr
    figures = json.loads((report / "conversion.json").read_text())["variants"]
    assert figures[1]["accuracy"]["stats"]["AP"] > 0.3
    assert figures[0]["ap_drop"] > 1
    result, output, _ = convert(*options, "--max-ap-drop", "100")
    assert result.exit_code == 0, result.output
    found = {entry.variant: entry.metrics["AP"] for entry in open_bundle(output).manifest.accuracy}
    assert found.keys() == {"toy-int8", "portable-fp32", "float"}
    assert found["float"] == found["portable-fp32"] > found["toy-int8"]


def test_bundle_that_would_fail_its_self_test_is_not_written(convert, pictures):
    result, output, report = convert(*INT8, pictures, "--min-oks", "0")
    assert result.exit_code == 5
    assert "self test: FAILED toy-int8 (int8) with onnxruntime on cpu" in result.stderr
    assert [path.name for path in output.parent.iterdir()] == [report.name]
    assert "- passed portable-fp32" in (report / "report.md").read_text()
    assert "- FAILED toy-int8" in (report / "report.md").read_text()


def test_float_variants_are_compared_on_the_calibration_images_and_not_calibrated(convert, pictures):
    result, output, report = convert("--calibration", pictures)
    assert result.exit_code == 0, result.output
    assert "run on 8 of the calibration images" in (report / "report.md").read_text()
    assert "calibration" not in open_bundle(output).manifest.provenance


def test_pictures_of_nobody_are_no_proof_and_that_is_said(convert, tiny_checkpoint, tmp_path):
    known = load_checkpoint(tiny_checkpoint)
    decode = known.spec.decode.model_copy(update={"score_threshold": 1.0})
    strict = tmp_path / "strict.safetensors"
    save_checkpoint(strict, known.state_dict, known.spec.model_copy(update={"decode": decode}))
    result, _, report = convert(source=strict)
    assert result.exit_code == 0, result.output
    said = "the float model finds nobody in the golden picture, so nothing is shown of toy-fp32, portable-fp32"
    assert said in result.stderr
    page = (report / "report.md").read_text()
    assert said in page
    assert page.count("| nobody found |") == 2


def test_evaluation_without_labels_is_refused_before_the_work(convert, pictures, tmp_path):
    for source in (pictures, tmp_path / "some.json"):
        if source != pictures:
            source.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png"}]}))
        result, output, _ = convert("--evaluate", source, *(() if source == pictures else ("--images", pictures)))
        assert result.exit_code == 6
        assert "nobody is labelled in it" in result.stderr
        assert not output.exists()


def test_progress_counts_the_pictures(
    exported, toy, tiny_checkpoint, tiny_picture, pictures, labels, no_selftest, tmp_path
):
    said = []
    request = Request(
        ("toy:int8",),
        calibration=pictures,
        few_images=True,
        evaluate=labels,
        images=pictures,
        golden=tiny_picture,
        gate=Gate(max_ap_drop=100),
    )
    package.convert(load_checkpoint(tiny_checkpoint), request, tmp_path / "toy.posebundle", step=said.append)
    for title in (
        "running the float model on calibration images",
        "running the float model",
        "verifying toy-int8 with onnxruntime",
    ):
        assert [line for line in said if line.startswith(f"{title}, ")] == [f"{title}, {n} of 8" for n in range(1, 9)]


def test_same_checkpoint_gives_the_same_bytes(convert, pictures, no_selftest):
    options = (*INT8, pictures, "--min-oks", "0")
    first = convert(*options)[1].read_bytes()
    second = convert(*options)[1].read_bytes()
    assert first == second


def test_time_of_a_reproducible_build_is_that_of_its_sources(convert, monkeypatch):
    assert open_bundle(convert()[1]).manifest.created is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert open_bundle(convert()[1]).manifest.created == "1970-01-02T00:00:00Z"


def test_bundle_is_a_source_as_good_as_its_checkpoint(convert, converted_bundle):
    result, output, _ = convert(source=converted_bundle)
    assert result.exit_code == 0, result.output
    first, second = open_bundle(converted_bundle), open_bundle(output)
    assert second.manifest.licence == first.manifest.licence
    assert second.manifest.provenance["step"] == first.manifest.provenance["step"]
    assert second.golden().keypoints == pytest.approx(first.golden().keypoints, abs=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "int8"), "int8 needs calibration images"),
        (("--precision", "int8", "--calibration", "PICTURES"), "8 images, at least 100 are needed"),
        (("--images", "PICTURES"), "--images goes with --evaluate only"),
        (("--target", "onnx:bf16"), "target onnx is made in fp32, int8 only, not in bf16"),
    ],
)
def test_int8_without_enough_images_is_refused_as_wrong_usage(convert, pictures, options, said):
    result, output, report = convert(*(pictures if option == "PICTURES" else option for option in options))
    assert result.exit_code == 2
    assert said in result.stderr
    assert not output.exists()
    assert not report.exists()


def test_targets_stand_in_the_order_and_precisions_that_are_named():
    named = Request(("onnx:fp32", "cpu:int8"))
    assert planned(named) == (("onnx", "fp32"), ("cpu", "int8"))
    assert named.quantizes
    assert planned(Request(("cpu", "onnx"), ("int8", "fp32", "bf16"))) == (
        ("cpu", "int8"),
        ("cpu", "fp32"),
        ("cpu", "bf16"),
        ("onnx", "int8"),
        ("onnx", "fp32"),
    )
    assert planned(Request(("jetson", "cpu"))) == (("jetson", "fp16"), ("cpu", "fp32"))


def test_portable_graphs_stand_where_the_onnx_target_is_named(convert):
    _, output, _ = convert(first=("--target", "onnx,toy"))
    assert [variant.name for variant in open_bundle(output).manifest.variants] == ["portable-fp32", "toy-fp32"]


def test_help_names_the_number_of_calibration_images_that_is_checked():
    assert f"fewer than {FEWEST_IMAGES}" in " ".join(run("--help").stdout.split())


def test_calibration_images_of_a_coco_file_are_those_it_lists(pictures, tmp_path):
    (tmp_path / "images").symlink_to(pictures)
    names = ["3.png", "1.png"]
    (tmp_path / "some.json").write_text(json.dumps({"images": [{"file_name": name} for name in names]}))
    found = read_calibration(tmp_path / "some.json", few_allowed=True)
    assert [path.name for path in found.paths] == ["1.png", "3.png"]
    assert found.sha256 != read_calibration(pictures, few_allowed=True).sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{}", "no COCO annotations"),
        ('{"images": []}', "lists no images"),
        ('{"images": [{"file_name": "none.png"}]}', "none.png is not in"),
    ],
)
def test_calibration_file_without_images_is_refused(tmp_path, content, said):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError, match=said):
        read_calibration(path, few_allowed=True)
