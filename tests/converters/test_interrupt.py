"""What a conversion says where no person watches it, and what it leaves behind where it is stopped."""

import subprocess
import sys
from pathlib import Path

import pytest

from posesdk_converters import program

STOPPED = """
import os, signal, sys, time
from posesdk_converters import cli
from posesdk_converters.targets import onnx

def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

onnx.convert = stop
cli.main()
"""


def test_stopped_conversion_leaves_nothing_behind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = (str(tiny_checkpoint), "--target", "onnx", "-o", str(tmp_path / "out.posebundle"))
    done = subprocess.run([sys.executable, "-c", STOPPED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "posesdk: interrupted"
    assert "posesdk: exporting trunk" in done.stderr.splitlines()


def test_log_has_one_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with program._telling() as step:
        for text in ("running on images", "running on images, 1 of 3", "running on images, 2 of 3", "writing [/x]"):
            step(text)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["posesdk: running on images", "posesdk: writing [/x]"]
