import io
import sys
import time

import numpy as np

from posesdk.poses import FrameInfo, Poses
from posesdk.progress import progress_bar
from posesdk.video import FrameStream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def poses(index: int) -> Poses:
    nothing = np.zeros((0, 17))
    return Poses(
        keypoints=np.zeros((0, 17, 2)),
        keypoint_scores=nothing,
        scores=nothing[:, 0],
        image_size=(4, 4),
        frame=FrameInfo("x", index),
    )


def test_a_terminal_sees_how_far_a_source_is(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(1, data_on_stdout=True) as watch:
        assert watch is not None
        with watch(FrameStream("dance.mp4", iter([]), count=40)) as seen:
            seen(poses(9))
            sys.stdout.write("data for a pipe\n")
            deadline = time.monotonic() + 60
            while "10/40" not in terminal.getvalue() and time.monotonic() < deadline:
                time.sleep(0.02)  # the bar is drawn some times a second
    assert "10/40" in terminal.getvalue()
    assert "dance.mp4" in terminal.getvalue()
    assert sys.stdout.getvalue() == "data for a pipe\n"


def test_a_log_file_sees_no_bar_and_neither_does_data_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(1, data_on_stdout=False) as watch:
        assert watch is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    with progress_bar(1, data_on_stdout=True) as watch:
        assert watch is None
