"""The hand-over: its description and its tensors are enough to find the same poses without this SDK."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.adapt import uses_attraction
from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.handover import find_mobile_variant, write_description, write_handover
from posesdk.handover_trace import trace_picture
from posesdk.manifest import Variant
from posesdk.pipeline import Pipeline
from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, InputSpec, ModelSpec
from posesdk_runtimes.base import Tensor, TensorSpec

CHECK = Path(__file__).resolve().parents[2] / "samples" / "check_handover.py"
SIZE = (64, 96)


class Drawn:
    """A graph whose outputs are smooth random maps, the same at each call."""

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self.inputs = (TensorSpec("any", (None,), np.dtype(np.uint8)),)
        self.outputs: tuple[TensorSpec, ...] = ()

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        random = np.random.default_rng(self._seed)
        count, size = self._spec.keypoint_count, self._spec.adaptation.local_size
        if "context" in feeds:
            maps = random.normal(0.2, 0.5, (len(feeds["context"]), count, size, size)).astype(np.float32)
            maps[:, 3] = -1  # a keypoint without any attraction
            return {"attraction_maps": maps}
        height, width = (side // 4 for side in SIZE)
        rough = random.normal(-0.2, 0.3, (count + 1, height // 4, width // 4)).astype(np.float32)
        smooth = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in rough])
        return {
            "heatmaps": 1 / (1 + np.exp(-6 * smooth[None])),
            "offsets": random.normal(0, 3, (1, 2 * count, height, width)).astype(np.float32),
            "embedding": random.normal(0, 1, (1, height, width, 3)).astype(np.float32),
        }

    def close(self) -> None:
        """Nothing is held."""


def make_spec(frame: str = "consistent", decode: DecodeSpec | None = None, **adaptation: object) -> ModelSpec:
    return ModelSpec(
        name="drawn",
        frame=frame,
        input=InputSpec(resize="fixed", size=SIZE, multiple=32),
        heads=HeadSpec(embedding=3),
        decode=decode or DecodeSpec(max_people=8, score_threshold=0.0, center_threshold=0.05),
        adaptation=AdaptationSpec.model_validate(
            {"local_size": 5, "global_size": 17, "reweigh_sigma": 3, **adaptation}
        ),
    )


def hand_over(folder: Path, spec: ModelSpec, picture: tuple[int, int], seed: int = 5) -> dict[str, np.ndarray]:
    image = np.random.default_rng(1).integers(0, 256, (*picture, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (5, 5), 2)
    pipeline = Pipeline(spec, Drawn(spec, seed), Drawn(spec, seed + 1) if uses_attraction(spec) else None)
    letterbox, tensors = trace_picture(image, pipeline)
    folder.mkdir()
    write_description(folder, spec, letterbox, tensors)
    estimate = pipeline.run(image)
    order = np.argsort(-estimate.scores, kind="stable")
    order = order[estimate.scores[order] >= np.float32(spec.decode.score_threshold)]
    np.testing.assert_array_equal(tensors["keypoints"], estimate.keypoints[order])
    np.testing.assert_array_equal(tensors["scores"], estimate.scores[order])
    return tensors


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECK), str(folder)], capture_output=True, text=True, check=False)


def part_left_out(lines: str) -> float:
    """The largest part of the keypoints that the check did not compare, since rounding decides their places."""
    counts = re.findall(r"(\d+) of (\d+) keypoints left out", lines)
    return max((int(some) / int(all_of_them) for some, all_of_them in counts), default=0.0)


CASES = {
    "full": (make_spec(), (50, 70)),
    "enlarged": (make_spec(), (20, 41)),
    "shrunk by area": (make_spec(), (300, 411)),
    "published": (make_spec("published"), (75, 90)),
    "published, odd and shrunk": (make_spec("published"), (301, 203)),
    "no gaussian": (make_spec(reweigh_sigma=None), SIZE),
    "without attraction": (make_spec(prior="kem"), SIZE),
    "attraction alone": (make_spec(prior="kam"), SIZE),
    "partial": (make_spec(level="partial"), SIZE),
    "none": (make_spec(level="none"), (70, 70)),
    "none, published": (make_spec("published", level="none"), SIZE),
    "few people": (make_spec(decode=DecodeSpec(max_people=3, score_threshold=0.02)), SIZE),
    "one center below the threshold": (make_spec(decode=DecodeSpec(center_threshold=1, score_threshold=0)), SIZE),
    "wide suppression": (
        make_spec(decode=DecodeSpec(max_people=16, nms_distance=0.8, nms_keypoints=3, score_threshold=0)),
        SIZE,
    ),
    "no suppression": (make_spec(decode=DecodeSpec(max_people=9, nms_distance=0, score_threshold=0)), SIZE),
}


@pytest.mark.parametrize(("spec", "picture"), CASES.values(), ids=CASES)
def test_a_decoder_written_from_the_description_finds_the_same_poses(
    spec: ModelSpec, picture: tuple[int, int], tmp_path: Path
) -> None:
    tensors = hand_over(tmp_path / "out", spec, picture)
    assert len(tensors["keypoints"]) > 0
    done = check(tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "ok      keypoints: off by" in done.stdout
    is_flat = spec.adaptation.reweigh_sigma is None or spec.adaptation.prior == "kam"  # equal beyond the maps' border
    assert part_left_out(done.stdout) < (0.5 if is_flat else 0.2)
    assert ("response" in done.stdout) == (spec.adaptation.level == "full")


def test_the_check_finds_a_tensor_that_is_off(tmp_path: Path) -> None:
    tensors = hand_over(tmp_path / "out", make_spec(), SIZE)
    moved = tensors["keypoints"].astype("<f4") + np.float32(0.01)
    (tmp_path / "out" / "golden" / "keypoints.bin").write_bytes(moved.tobytes())
    done = check(tmp_path / "out")
    assert done.returncode == 1
    assert "FAILED  keypoints" in done.stdout


def test_the_description_has_every_number_of_the_model_and_every_tensor(tmp_path: Path) -> None:
    decode = DecodeSpec(
        center_threshold=0.0123, max_people=23, nms_distance=0.0456, nms_keypoints=7, score_threshold=0.0345
    )
    tensors = hand_over(tmp_path / "out", make_spec(decode=decode), SIZE)
    text = (tmp_path / "out" / "DECODER.md").read_text("utf-8")
    for number in (
        "0.0123",
        "most 23",
        "0.0456",
        "more than 7 of",
        "0.0345",
        "64 x 96",
        "17 x 17",
        "5 x 5",
        "1/25",
        "4.28",
    ):
        assert number in text, number
    for name in tensors:
        assert f"`{name}`" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        line for line in text.splitlines() if line.startswith("##")
    ]


def test_the_stored_tensors_are_little_endian_in_the_order_of_the_index(tmp_path: Path) -> None:
    tensors = hand_over(tmp_path / "out", make_spec(), SIZE)
    index = json.loads((tmp_path / "out" / "golden" / "index.json").read_text("utf-8"))
    assert [entry["name"] for entry in index["tensors"]] == list(tensors)
    for entry in index["tensors"]:
        raw = (tmp_path / "out" / "golden" / entry["file"]).read_bytes()
        kind = {"float32": "<f4", "uint8": "u1", "int32": "<i4"}[entry["dtype"]]
        np.testing.assert_array_equal(np.frombuffer(raw, kind).reshape(entry["shape"]), tensors[entry["name"]])
    assert index["letterbox"] == {"scale": 1.0, "shift": [0.0, 0.0]}


def test_a_bundle_without_mobile_files_is_refused_with_what_to_do(tmp_path: Path) -> None:
    bundle = open_bundle(default_bundle_path())
    with pytest.raises(ValueError, match=r"nothing for tflite: it has .*convert with --target mobile"):
        write_handover(bundle, tmp_path / "out")
    with pytest.raises(ValueError, match="nothing for tflite in int8"):
        find_mobile_variant(bundle, "int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_hand_over_of_a_converted_model_is_complete(mobile_bundle: Path, tmp_path: Path) -> None:
    from posesdk.commands import app

    output = tmp_path / "app" / "out"
    done = CliRunner().invoke(app, ["handover", str(mobile_bundle), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in output.iterdir()} == {
        "trunk.tflite",
        "adapt.tflite",
        "manifest.json",
        "decoder.json",
        "DECODER.md",
        "golden",
    }
    bundle = open_bundle(mobile_bundle)
    assert (output / "trunk.tflite").read_bytes() == bundle.read(find_mobile_variant(bundle).trunk)
    checked = check(output)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    golden = bundle.golden()
    assert golden is not None
    index = json.loads((output / "golden" / "index.json").read_text("utf-8"))
    shapes = {entry["name"]: entry["shape"] for entry in index["tensors"]}
    assert shapes["keypoints"] == [len(golden.scores), 17, 2]
    keypoints = np.fromfile(output / "golden" / "keypoints.bin", "<f4").reshape(shapes["keypoints"])
    np.testing.assert_allclose(keypoints, golden.keypoints, atol=0.5)
    again = CliRunner().invoke(app, ["handover", str(mobile_bundle), "--output", str(output)])
    assert again.exit_code == 1


@pytest.mark.parametrize("change", [{"method": "dac"}, {"centers": "dual"}])
def test_a_model_that_the_description_does_not_fit_is_refused(
    change: dict[str, str], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    paths = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx"}
    variants = (Variant(name="mobile", runtime=("tflite",), **paths),)
    bundle = open_bundle(make_bundle(tmp_path / "b", model=make_spec().model_copy(update=change), variants=variants))
    with pytest.raises(ValueError, match="describes the decoder of LOGO-CAP with one center"):
        write_handover(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_mobile_files_is_a_wrong_use_of_the_command(tmp_path: Path) -> None:
    from posesdk.commands import app

    done = CliRunner().invoke(app, ["handover", str(default_bundle_path()), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.stderr.startswith("posesdk: error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
