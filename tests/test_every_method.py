"""A bundle of each method does on the device whatever a user can ask for on the command line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.bundle import open_bundle
from posesdk.commands import app
from posesdk.detector import Detector

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture
def sources(tmp_path: Path, pictures) -> list[str]:
    """Two pictures and a video of blocks of colour."""
    paths = []
    for name, picture in zip(("7.png", "12.png"), pictures(2), strict=True):
        paths.append(str(tmp_path / name))
        cv2.imwrite(paths[-1], picture[0])
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (96, 96))
    for seed in range(4):
        (picture,) = pictures(1, seed)
        video.write(cv2.resize(picture[0], (96, 96)))
    video.release()
    return [*paths, str(tmp_path / "clip.avi")]


def command(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_output_of_detect_holds_what_the_detector_finds(every_bundle, sources, runtime, tmp_path):
    pytest.importorskip(runtime, reason="backend is optional")
    names = {kind: tmp_path / f"poses.{kind}" for kind in ("json", "jsonl", "coco")}
    written = [word for kind, path in names.items() for word in (f"--{kind}", path)]
    choice = ("--model", every_bundle, "--runtime", runtime, "--threads", 1)
    command("detect", *sources, *choice, *written, "--draw", tmp_path / "drawn", "--profile")
    with Detector(every_bundle, runtime=runtime, threads=1) as detector:
        found = [poses for source in sources for poses in detector.stream(source)]
    frames = json.loads(names["json"].read_text())["frames"]
    lines = [json.loads(line) for line in names["jsonl"].read_text().splitlines()]
    assert len(frames) == len(lines) == len(found) == 6
    assert sum(map(len, found)) > 6
    for frame, line, poses in zip(frames, lines, found, strict=True):
        assert frame["persons"] == line["persons"] == poses.to_dict()["persons"]
    results = json.loads(names["coco"].read_text())
    assert [entry["image_id"] for entry in results[:1]] == [7]
    assert len(results) == sum(int((poses.scores >= 0.01).sum()) for poses in found)
    drawn = cv2.imread(str(tmp_path / "drawn" / "7.png"))
    assert (drawn != cv2.imread(sources[0])).any()
    assert (tmp_path / "drawn" / "clip.mp4").stat().st_size > 0


def test_a_variant_is_chosen_by_its_name_and_the_flip_test_by_an_option(every_bundle, sources):
    for variant in open_bundle(every_bundle).manifest.variants:
        options = ("--model", every_bundle, "--variant", variant.name, "--threads", 1, "--json", "-", "--flip")
        (frame,) = json.loads(command("detect", sources[0], *options))["frames"]
        with Detector(every_bundle, variant=variant.name, threads=1, flip_test=True) as detector:
            assert frame["persons"] == detector(sources[0]).to_dict()["persons"]
        with Detector(every_bundle, variant=variant.name, threads=1) as detector:
            assert frame["persons"] != detector(sources[0]).to_dict()["persons"]


def test_the_self_test_passes_with_every_variant_runtime_and_device(every_bundle):
    checks = command("selftest", every_bundle).splitlines()
    assert [line.split()[0] for line in checks] == ["passed"] * 3
    assert all("0 of 0 people" not in line for line in checks)


def test_variants_are_verified_against_the_portable_graphs(every_bundle, sources, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for source in sources[:2]:
        Path(source).rename(folder / Path(source).name)
    assert "cpu-fp32" in command("verify", every_bundle, "--data", folder, "--threads", 1)


def test_what_a_bundle_has_no_variant_for_is_told_with_the_conversion(every_bundle, tmp_path):
    assert f"`posesdk-convert {every_bundle} --target" in command("prepare", every_bundle, code=2)
    assert "convert with --target mobile" in command("handover", every_bundle, "-o", tmp_path / "out", code=2)


def test_a_stream_is_the_poses_of_its_frames_one_by_one(every_bundle, sources):
    with Detector(every_bundle, runtime="onnxruntime", threads=1) as detector:
        streamed = list(detector.stream(sources[:2]))
        for poses, source in zip(streamed, sources, strict=False):
            assert poses.frame.source == source
            np.testing.assert_array_equal(poses.keypoints, detector(source).keypoints)
