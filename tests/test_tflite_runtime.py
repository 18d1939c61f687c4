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
    lines = run(POSESDK, "selftest", mobile_bundle).stdout.splitlines()
    assert [line.partition(" with ")[0] for line in lines[:2]] == [
        "passed mobile-fp32 (fp32)",
        "passed mobile-fp16 (fp16)",
    ]
    assert "mobile-int8 (int8) with tflite on cpu" in lines[2]  # calibrated on noise, so passed or not


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_both_interpreters_find_the_same_keypoints(mobile_bundle: Path, tiny_picture: Path, precision: str) -> None:
    where = ("--model", mobile_bundle, "--runtime", "tflite", "--precision", precision)
    command = ["detect", tiny_picture, *where, "--json", "-"]
    found = []
    for program in ([POSESDK], [sys.executable, "-c", "from posesdk.cli import main; main()"]):
        done = run(*program, *command)
        assert (done.returncode, done.stderr) == (0, "")
        (frame,) = json.loads(done.stdout)["frames"]
        found.append(np.array([person["keypoints"] for person in frame["persons"]]))
    old, new = found
    assert old.shape == new.shape
    assert len(old) > 0
    # Rounding may decide between two equal responses; everything else is the same.
    shift = np.linalg.norm(old[..., :2] - new[..., :2], axis=-1)
    assert np.mean(shift < 0.01) > 0.95
    np.testing.assert_allclose(old[..., 2], new[..., 2], atol=1e-4)


PROGRAM = """
import sys
import numpy
from posesdk_runtimes.registry import open_runtime
graph, feeds, output = sys.argv[1:]
numpy.savez(output, **open_runtime(graph, threads=1).run(dict(numpy.load(feeds))))
"""


@pytest.mark.parametrize("graph", ["trunk", "adapt"])
def test_both_interpreters_give_the_same_maps_in_int8(mobile_bundle: Path, tmp_path: Path, graph: str) -> None:
    from posesdk.bundle import open_bundle
    from posesdk_runtimes.registry import open_runtime

    path = open_bundle(mobile_bundle).local_path(f"mobile-int8/{graph}.tflite")
    random = np.random.default_rng(2)
    feeds = {
        "trunk": {"image": random.integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)},
        "adapt": {"context": random.random((3, 17 * 4, 5, 5), dtype=np.float32)},
    }[graph]
    np.savez(tmp_path / "in.npz", **feeds)
    done = run(POSESDK.with_name("python"), "-c", PROGRAM, path, tmp_path / "in.npz", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    new = open_runtime(path, threads=1).run(feeds)
    with np.load(tmp_path / "out.npz") as old:
        assert set(old) == set(new)
        for name, values in new.items():  # other kernels may round to the next step
            assert np.corrcoef(old[name].ravel(), values.ravel())[0, 1] > 0.995, name
            assert np.quantile(np.abs(old[name] - values), 0.999) < 0.1 * np.ptp(values), name
