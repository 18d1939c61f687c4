"""What is around the graphs stays on the caller's thread: threads of numpy's library spin where graphs want to run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys, threading
import cv2, numpy as np, psutil
from posesdk.adapt import adapt_poses
from posesdk.context import local_context
from posesdk.decode import InitialPoses
from posesdk.preprocess import make_letterbox
from posesdk.spec import AdaptationSpec, HeadSpec, InputSpec, ModelSpec

cv2.setNumThreads(1)
random = np.random.default_rng(0)
spec = ModelSpec(
    name="nano",
    input=InputSpec(resize="long", side=320, multiple=32),
    heads=HeadSpec(embedding=16),
    adaptation=AdaptationSpec(local_size={local}, global_size={window}, reweigh_sigma=16.0),
)
image = random.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
heatmaps = cv2.GaussianBlur(random.random((192, 320, 18), dtype=np.float32), (0, 0), 3)[::4, ::4].transpose(2, 0, 1)
embedding = random.random((48, 80, 16), dtype=np.float32)
keypoints = (random.random((30, 17, 2)) * (320, 192)).astype(np.float32)
initial = InitialPoses(keypoints, np.ones(30, np.float32), keypoints[:, 0], np.zeros(30, np.intp))
attraction = random.random((30, 17, {local}, {local}), dtype=np.float32)

def seconds():
    here = threading.get_native_id()
    times = {{thread.id: thread.user_time for thread in psutil.Process().threads()}}
    return times.pop(here), sum(times.values())

def frame():
    make_letterbox((720, 1280), spec.input, spec.frame).warp(image)
    local_context(keypoints, embedding, spec)
    adapt_poses(initial, heatmaps, attraction, spec)

frame()
before = seconds()
while seconds()[0] < before[0] + 0.5:
    frame()
after = seconds()
print((after[1] - before[1]) / (after[0] - before[0]))
"""
"""Prints how much processor time other threads take beside that of the one that works."""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
@pytest.mark.parametrize(("local", "window"), [(5, 33), (7, 49), (11, 97)])
def test_no_other_thread_works_or_waits_busily(local, window):
    path = os.pathsep.join(str(ROOT / folder) for folder in ("sdk", "runtimes"))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(local=local, window=window)],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 0.1
