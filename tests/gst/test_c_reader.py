import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loader_check import need_the_loader
from posesdk.gst import plugin_path, why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "samples" / "gstreamer" / "pose_reader.c"
HOST = """
import ctypes, sys
import posesdk.gst
posesdk.gst.register()
arguments = [b"pose_reader", sys.argv[2].encode()]
sys.exit(ctypes.CDLL(sys.argv[1]).main(2, (ctypes.c_char_p * 3)(*arguments, None)))
"""
"""Runs the reader's main in a process that has the elements, where no plugin loader is needed."""


def build(target, *options):
    """Compiles as the sample's header says, with warnings as errors; skips where there is no compiler or no headers."""
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("pkg-config") is None:
        pytest.skip("needs a C compiler and pkg-config: apt-get install gcc pkg-config")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "gstreamer-1.0"], capture_output=True, text=True, timeout=30
    )
    if flags.returncode != 0:
        pytest.skip("needs the headers of GStreamer: apt-get install libgstreamer1.0-dev")
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", *options, "-o", str(target), str(SOURCE)]
    done = subprocess.run([*command, *flags.stdout.split(), "-lm"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return build(tmp_path_factory.mktemp("reader") / "pose_reader")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("reader") / "pose_reader.so", "-shared", "-fPIC")


def pipeline(bundle, lines, frames=3):
    return (
        f"videotestsrc pattern=smpte num-buffers={frames} ! video/x-raw,format=RGB,width=96,height=64 ! "
        f"logocappose model={bundle} runtime=onnxruntime threads=1 mode=sync score-threshold=0 ! tee name=t "
        f"t. ! queue ! logocapposejson ! filesink location={lines} t. ! queue ! videoscale ! "
        "video/x-raw,width=48,height=48 ! fakesink name=poses"
    )


def said_by_json(path):
    """The lines that the reader is to print, from the JSON of the same frames."""
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        for number, person in enumerate(line["persons"]):
            points = [value for point in person["keypoints"] for value in point]
            lines.append([line["index"], number, person["score"], *points])
    return lines


def said_by_reader(text):
    """`frame 0 person 1 score 0.5  1.000 2.000 0.25 ...` as numbers."""
    return [[float(part) for part in line.split() if part[-1].isdigit()] for line in text.splitlines()]


def same(text, path):
    found, expected = said_by_reader(text), said_by_json(path)
    assert len(expected) > 3
    assert [len(line) for line in found] == [3 + 17 * 3] * len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=2e-7, rel=2e-7)
    assert [line[:2] for line in found] == [line[:2] for line in expected]


def test_c_reads_what_the_json_says(library, converted_bundle, tmp_path):
    lines = tmp_path / "poses.jsonl"
    command = [sys.executable, "-c", HOST, str(library), pipeline(converted_bundle, lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    same(done.stdout, lines)


def test_c_program_loads_the_elements_from_the_plugin_path(reader, converted_bundle, tmp_path):
    need_the_loader()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GST_PLUGIN_PATH": str(plugin_path()),
        "GST_REGISTRY": str(tmp_path / "registry.bin"),
    }
    lines = tmp_path / "poses.jsonl"
    command = [str(reader), pipeline(converted_bundle, lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    same(done.stdout, lines)


def test_c_reader_is_silent_about_frames_without_poses(reader):
    command = [str(reader), "videotestsrc num-buffers=2 ! fakesink name=poses"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_c_reader_says_what_it_needs(reader):
    command = [str(reader), "videotestsrc num-buffers=2 ! fakesink"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no element named `poses`" in done.stderr
