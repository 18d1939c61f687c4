"""The device side with the last tflite-runtime: numpy 1.26, no ONNX Runtime; in an environment of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
POSESDK = ROOT / ".venv-tflite" / "bin" / "posesdk"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not POSESDK.exists(), reason="no .venv-tflite: run scripts/tflite_runtime_env.sh"),
]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)


def test_the_environment_is_the_one_of_an_old_device() -> None:
    program = "import numpy, importlib.util as u; print(numpy.__version__, u.find_spec('onnxruntime'))"
    assert run(POSESDK.with_name("python"), "-c", program).stdout == "1.26.4 None\n"
    lines = run(POSESDK, "doctor").stdout.splitlines()
    assert "ok      tflite: 2.14.0, devices: cpu" in lines
    assert not [line for line in lines if line.startswith("broken")]


def test_the_self_test_of_a_mobile_bundle_passes(mobile_bundle: Path) -> None:
    done = run(POSESDK, "selftest", mobile_bundle)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith("passed mobile-fp32 (fp32) with tflite on cpu")


def test_both_interpreters_find_the_same_keypoints(mobile_bundle: Path, tiny_picture: Path) -> None:
    command = ["detect", tiny_picture, "--model", mobile_bundle, "--runtime", "tflite", "--json", "-"]
    found = []
    for program in ([POSESDK], [sys.executable, "-c", "from posesdk.cli import main; main()"]):
        done = run(*program, *command)
        assert done.returncode == 0, done.stderr
        (frame,) = json.loads(done.stdout)["frames"]
        found.append(np.array([person["keypoints"] for person in frame["persons"]]))
    old, new = found
    assert old.shape == new.shape
    assert len(old) > 0
    # Rounding may decide between two equal responses; everything else is the same.
    shift = np.linalg.norm(old[..., :2] - new[..., :2], axis=-1)
    assert np.mean(shift < 0.01) > 0.95
    np.testing.assert_allclose(old[..., 2], new[..., 2], atol=1e-4)
