"""C++ exceptions in a process that has loaded GStreamer: in processes of their own, where libraries load in order."""

import subprocess
import sys

import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

PROGRAM = """
import cv2
try:
    cv2.resize(None, (0, 0))
except cv2.error:
    pass
from posesdk.gst.bindings import Gst
import onnxruntime
try:
    onnxruntime.InferenceSession(b"no model")
except Exception as error:
    print("caught", type(error).__name__)
"""


def test_a_runtime_that_is_loaded_after_gstreamer_raises_instead_of_aborting():
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env={"PYTHONPATH": path}
    )
    assert done.stdout.startswith("caught"), (done.returncode, done.stderr[-2000:])
