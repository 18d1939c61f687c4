"""`posesdk` as a user types it.

Long, because every output, fault and exit code of the commands has a test, on one set of fixtures.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posesdk.commands import app
from posesdk.manifest import Variant
from posesdk.sources import open_source

RUN = CliRunner()


@pytest.fixture
def folder(tmp_path, spots, monkeypatch) -> Path:
    """The working folder: two people in 7.png, one in 12.png, nobody in empty.png, and a video of 12 frames."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("7.png", spots([(50, 60), (140, 70)]))
    cv2.imwrite("12.png", spots([(90, 60)]))
    cv2.imwrite("empty.png", spots([]))
    noise = np.random.default_rng(0).integers(0, 9, (128, 192, 3)).astype(np.uint8)
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (192, 128))
    for index in range(12):
        writer.write(np.maximum(noise, spots([(40 + 10 * index, 60)])))
    writer.release()
    return tmp_path


@pytest.fixture
def posesdk(tiny_bundle, folder):
    """Runs the command line inside this process with the tiny model."""

    def run(*arguments, model=tiny_bundle):
        named = ["--model", str(model)] if arguments[0] == "detect" and model else []
        return RUN.invoke(app, [*map(str, arguments), *named])

    return run


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_people_are_told_in_a_line_a_frame(posesdk):
    done = posesdk("detect", "7.png", "empty.png", "12.png")
    assert done.exit_code == 0
    assert done.stderr == ""
    told = lines(done.stdout)
    assert [line.split(" (")[0].split(", ")[0] for line in told] == [
        "7.png: 2 people",
        "empty.png: 0 people",
        "12.png: 1 person",
    ]


def test_a_frame_of_a_video_is_told_with_its_time(posesdk):
    done = posesdk("detect", "clip.avi")
    assert done.exit_code == 0
    told = lines(done.stdout)
    assert len(told) == 12
    assert told[3].startswith("clip.avi at 0.24 s: 1 person (0.")


def test_json_on_standard_output_is_clean_and_follows_the_schema(posesdk):
    done = posesdk("detect", "7.png", "empty.png", "--json", "-")
    data = json.loads(done.stdout)
    assert done.exit_code == 0
    assert data["v"] == 1
    first, second = data["frames"]
    assert (first["source"], first["width"], first["height"], first["model"]) == ("7.png", 192, 128, "tiny")
    assert (first["skeleton"], len(first["persons"]), len(first["persons"][0]["keypoints"])) == ("coco-17", 2, 17)
    assert second["persons"] == []
    assert first["timing_ms"].keys() == second["timing_ms"].keys()


def test_json_lines_of_a_video_have_index_and_time(posesdk):
    done = posesdk("detect", "clip.avi", "--jsonl", "-")
    frames = [json.loads(line) for line in lines(done.stdout)]
    assert [frame["index"] for frame in frames] == list(range(12))
    assert [frame["pts"] for frame in frames] == pytest.approx([index / 12.5 for index in range(12)], abs=1e-3)
    places = [frame["persons"][0]["box"][0] for frame in frames]
    assert places[8] - places[2] == pytest.approx(6 * 10, abs=8)


def test_python_and_the_command_line_give_the_same_numbers(posesdk, tiny_bundle):
    from posesdk import Detector

    (frame,) = json.loads(posesdk("detect", "7.png", "--json", "-").stdout)["frames"]
    with Detector(tiny_bundle) as detector:
        assert detector("7.png").to_dict() | {"timing_ms": {}} == frame | {"timing_ms": {}}


def test_coco_results_go_below_the_score_threshold(posesdk):
    done = posesdk("detect", ".", "--coco", "out/coco.json", "--score-threshold", "0.12", "--jsonl", "out/x.jsonl")
    assert done.exit_code == 0
    results = json.loads(Path("out/coco.json").read_text())
    frames = [json.loads(line) for line in lines(Path("out/x.jsonl").read_text())]
    assert [len(frame["persons"]) for frame in frames] == [1, 1, 0]
    assert [(entry["image_id"], entry["file_name"]) for entry in results] == [
        (7, "7.png"),
        (7, "7.png"),
        (12, "12.png"),
    ]
    assert {len(entry["keypoints"]) for entry in results} == {51}
    assert all("bbox" not in entry for entry in results)


def test_pictures_and_videos_are_drawn(posesdk):
    done = posesdk("detect", "7.png", "clip.avi", "--draw", "out")
    assert done.exit_code == 0
    assert "13 frames written to out" in done.stdout
    drawn = cv2.imread("out/7.png")
    assert (drawn.max(axis=2).astype(int) - drawn.min(axis=2)).max() > 100  # colors on a grey picture
    assert len(list(open_source("out/clip.mp4"))) == 12
    assert posesdk("detect", "7.png", "--draw", "single.jpg").exit_code == 0
    assert Path("single.jpg").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("7.png", "12.png", "--draw", "one.png"),
        ("clip.avi", "--draw", "one.png"),
        (".", "--draw", "one.jpg"),
        ("7.png", "12.png", "--draw", "one.mp4"),
        ("clip.avi", "7.png", "--draw", "."),
        ("7.png", "--json", "-", "--jsonl", "-"),
        ("7.png", "--json", "12.png"),
        ("notes", "--coco", "notes"),
        ("7.png", "--json", "same", "--coco", "./same"),
        ("7.png", "--json", "same", "--draw", "same"),
        ("7.png", "--score-threshold", "2"),
        ("7.png", "--max-people", "0"),
        ("7.png", "--device", "toaster"),
        ("7.png", "--runtime", "tensorflow"),
        ("7.png", "--precision", "int8"),
        ("7.png", "--nonsense"),
        (),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_and_writes_nothing(posesdk, arguments):
    shutil.copy("7.png", "notes")
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    done = posesdk("detect", *arguments)
    assert done.exit_code == 2
    assert done.stderr
    assert "Traceback" not in done.output
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_a_missing_model_or_a_broken_one_ends_with_4(posesdk, tmp_path):
    for model in ("none.posebundle", "7.png"):
        done = posesdk("detect", "7.png", model=model)
        assert done.exit_code == 4
        (line,) = lines(done.stderr)
        assert model in line
        assert posesdk("info", model).exit_code == 4
        assert posesdk("selftest", model).exit_code == 4


def test_a_device_that_is_not_here_ends_with_3(posesdk):
    done = posesdk("detect", "7.png", "--device", "npu")
    assert done.exit_code == 3
    assert len(lines(done.stderr)) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "no such file"),
        ("text.png", "damaged"),
        ("nothing.png", "empty (0 bytes)"),
        ("cut.png", "cut off"),
        ("text.mp4", "cannot open video"),
        ("99", "cannot open camera 99"),
        ("rtsp://127.0.0.1:9/x", "cannot open stream"),
        ("none*.jpg", "no image matches"),
        ("hollow", "holds no image"),
    ],
)
def test_a_source_that_cannot_be_read_ends_with_6_and_one_line(posesdk, source, message):
    Path("text.png").write_text("no picture" * 99)
    Path("text.mp4").write_text("no video" * 99)
    Path("nothing.png").touch()
    Path("cut.png").write_bytes(Path("7.png").read_bytes()[:500])
    Path("hollow").mkdir()
    done = posesdk("detect", source, "--json", "-")
    assert done.exit_code == 6
    (line,) = lines(done.stderr)
    assert message in line
    assert json.loads(done.stdout) == {"v": 1, "frames": []}


def test_one_bad_picture_of_a_folder_is_told_and_the_rest_are_done(posesdk):
    Path("9.png").write_text("no picture")
    done = posesdk("detect", ".", "--json", "-")
    assert done.exit_code == 6
    told = lines(done.stderr)
    assert len(told) == 2
    assert "9.png" in told[0]
    assert "1 of 4 inputs could not be read" in told[1]
    assert [frame["source"] for frame in json.loads(done.stdout)["frames"]] == ["7.png", "12.png", "empty.png"]


def test_a_bad_source_does_not_cost_the_others(posesdk):
    done = posesdk("detect", "none.png", "7.png", "99", "12.png", "--jsonl", "-")
    assert done.exit_code == 6
    assert len(lines(done.stdout)) == 2
    assert "2 of 4 inputs" in lines(done.stderr)[-1]


def test_a_cut_off_video_keeps_what_was_found_and_ends_with_6(posesdk):
    os.truncate("clip.avi", os.path.getsize("clip.avi") // 2)
    done = posesdk("detect", "clip.avi", "--json", "out.json", "--draw", "out.mp4")
    assert done.exit_code == 6
    (line,) = lines(done.stderr)
    assert "clip.avi ends early" in line
    frames = json.loads(Path("out.json").read_text())["frames"]
    assert 0 < len(frames) < 12
    assert len(list(open_source("out.mp4"))) == len(frames)


def test_a_place_that_cannot_be_written_ends_with_1(posesdk):
    done = posesdk("detect", "7.png", "--json", "7.png/x.json")
    assert done.exit_code == 1
    assert "cannot write" in done.stderr


@pytest.mark.parametrize(
    ("option", "place"), [("--json", "locked/a"), ("--draw", "locked/a"), ("--draw", "locked/a.png")]
)
def test_a_place_that_may_not_be_looked_at_ends_with_1(posesdk, option, place, monkeypatch):
    def refusing(known):
        def call(path, *arguments, **settings):
            if "locked" in path.parts:
                raise PermissionError(13, "Permission denied")
            return known(path, *arguments, **settings)

        return call

    for name in ("stat", "write_bytes", "mkdir") if place.endswith("a") else ("stat", "write_bytes"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    done = posesdk("detect", "7.png", option, place)
    assert done.exit_code == 1
    assert lines(done.stderr)[0].startswith(f"posesdk: error: cannot write {place}: Permission denied")


def test_without_a_screen_show_says_what_to_do_instead(posesdk, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = posesdk("detect", "7.png", "--show")
    assert done.exit_code == 3
    assert "--draw" in done.stderr


def test_the_profile_goes_to_standard_error(posesdk):
    done = posesdk("detect", "clip.avi", "--jsonl", "-", "--profile")
    assert len([json.loads(line) for line in lines(done.stdout)]) == 12
    for word in ("trunk", "postprocess", "total", "median", "p95", "11 frames", "1.0 people"):
        assert word in done.stderr


def test_settings_reach_the_detector(posesdk):
    strict = posesdk("detect", "7.png", "--score-threshold", "0.12", "--json", "-")
    few = posesdk("detect", "7.png", "--max-people", "1", "--json", "-")
    flipped = posesdk("detect", "7.png", "--flip", "--json", "-")
    plain = posesdk("detect", "7.png", "--no-flip", "--threads", "1", "--runtime", "onnxruntime", "--json", "-")
    people = [json.loads(done.stdout)["frames"][0]["persons"] for done in (strict, few, plain, flipped)]
    assert [len(found) for found in people[:3]] == [1, 1, 2]
    assert people[3] != people[2]


def test_info_names_the_layers_that_int8_keeps_in_float(posesdk, make_bundle, tmp_path):
    variant = Variant(
        name="onnx-int8",
        precision="int8",
        trunk="portable/trunk.onnx",
        adapt="portable/adapt.onnx",
        float_layers=("node_conv_1", "node_conv_7"),
    )
    done = posesdk("info", make_bundle(tmp_path / "int8", variants=(variant,), provenance={"calibration": "8 images"}))
    assert "in float: node_conv_1, node_conv_7" in done.stdout
    assert "calibration: 8 images" in done.stdout


def test_info_tells_the_bundle_and_its_licences(posesdk, tiny_bundle):
    done = posesdk("info", tiny_bundle)
    assert done.exit_code == 0
    for word in ("tiny 1.2.3", "coco-17", "onnx-fp32", "Apache-2.0", "CC0-1.0", "short side 64"):
        assert word in done.stdout
    manifest = json.loads(posesdk("info", tiny_bundle, "--json").stdout)
    assert manifest["id"] == "tiny"


def test_the_selftest_passes_and_a_model_that_behaves_otherwise_ends_with_5(
    posesdk, tiny_bundle, tmp_path, make_bundle, spots, change_golden
):
    done = posesdk("selftest", tiny_bundle)
    assert done.exit_code == 0
    assert all(line.startswith("passed onnx-fp32") for line in lines(done.stdout))
    bundle = make_bundle(tmp_path / "other", spots([(50, 60)]))
    change_golden(bundle, list.clear)
    done = posesdk("selftest", bundle)
    assert done.exit_code == 5
    assert "FAILED" in done.stdout
    assert "checks failed" in done.stderr


def test_doctor_tells_what_is_there(posesdk):
    done = posesdk("doctor")
    assert done.exit_code == 0
    for word in ("Python", "numpy", "onnxruntime", "GStreamer", "cache folder"):
        assert word in done.stdout


def test_help_names_every_option_in_full_and_every_command_in_a_line(posesdk):
    told = posesdk("detect", "--help", model=None).stdout
    for option in ("--score-threshold", "--keypoint-threshold", "--max-people", "--no-flip", "--jsonl", "--draw"):
        assert option in told
    overview = posesdk("--help").stdout
    assert "..." not in overview.partition("Commands:")[2]
    assert "Exit codes: 0 ok, 1 failure, 2 usage" in overview


def test_a_usage_error_ends_in_one_line_that_says_what_is_wrong(posesdk):
    done = posesdk("detect", "7.png", "--json", "-", "--jsonl", "-")
    assert lines(done.stderr)[-1] == (
        "Error: Invalid value: only one of --json, --jsonl and --coco can go to standard output"
    )


def test_the_version_is_told(posesdk):
    import posesdk as package

    assert posesdk("--version", model=None).stdout.strip() == f"posesdk {package.__version__}"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from posesdk.cli import main; main()", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def test_a_process_of_its_own_says_a_line_a_fault_and_no_more(folder, tiny_bundle):
    """OpenCV, FFmpeg and libpng would write lines of their own."""
    os.truncate("clip.avi", os.path.getsize("clip.avi") // 2)
    Path("cut.png").write_bytes(Path("7.png").read_bytes()[:500])
    Path("text.mp4").write_text("no video" * 99)
    sources = ("clip.avi", "cut.png", "text.mp4", "99", "rtsp://127.0.0.1:9/x")
    done = subprocess.run(
        command("detect", *sources, "--model", tiny_bundle, "--jsonl", "-"),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 6
    assert len(lines(done.stderr)) == len(sources), done.stderr
    for line, source in zip(lines(done.stderr), sources, strict=True):
        assert line.startswith("posesdk: error: ")
        assert source in line
    assert all(json.loads(line)["v"] == 1 for line in lines(done.stdout))


def test_a_reader_that_leaves_ends_the_run_quietly(folder, tiny_bundle):
    run = subprocess.Popen(
        command("detect", *["clip.avi"] * 20, "--model", tiny_bundle, "--jsonl", "-"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert run.stdout is not None
    assert run.stderr is not None
    assert json.loads(run.stdout.readline())["index"] == 0
    run.stdout.close()
    assert run.wait(120) == 1
    assert run.stderr.read() == b""
    run.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_with_130_and_leaves_whole_files(folder, tiny_bundle, number):
    run = subprocess.Popen(
        command("detect", *["clip.avi"] * 2000, "--model", tiny_bundle, "--json", "out.json", "--draw", "drawn"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not (Path("out.json").exists() and Path("out.json").stat().st_size > 9000) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(number)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert err == b"posesdk: interrupted\n"
    frames = json.loads(Path("out.json").read_text())["frames"]
    assert f"{len(frames)} frames written to out.json, drawn" in out.decode()
    assert sum(len(list(open_source(path))) for path in Path("drawn").iterdir()) == len(frames)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [("--version",), ("info",), ("info", "--json"), ("doctor",), ("detect", "7.png")])
def test_a_full_disk_behind_standard_output_is_one_line(folder, tiny_bundle, arguments):
    extra = {"info": [tiny_bundle], "detect": ["--model", tiny_bundle]}.get(arguments[0], [])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(*arguments, *extra), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert done.returncode == 1
    assert len(lines(done.stderr)) == 1, done.stderr
    assert "posesdk: error: cannot write to standard output: No space left" in done.stderr


def test_a_process_without_standard_error_works(folder, tiny_bundle):
    shell = shlex.join(command("detect", "7.png", "--model", tiny_bundle)) + " 2>&-"
    done = subprocess.run(shell, shell=True, stdout=subprocess.PIPE, text=True, env=environment(), check=False)
    assert (done.returncode, lines(done.stdout)[0][:15]) == (0, "7.png: 2 people")
