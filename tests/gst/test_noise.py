import subprocess
import sys

import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

PROGRAM = """
from posesdk import gst
gst.register()
from posesdk.gst.bindings import Gst
Gst.parse_launch("logocappose ! logocappose")
Gst.Pipeline.new("p").get_bus().remove_signal_watch()  # there is none: a complaint of the same kind
"""


def test_elements_are_made_without_a_complaint_and_other_ones_are_shown():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "floating" not in done.stderr
    assert "no signal watches" in done.stderr
