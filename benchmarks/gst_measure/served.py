"""A network camera: a video as VP8 at 720p30, served by RTSP from a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gst_measure.camera import FPS, load_pictures, source_launch
from gst_measure.pipelines import wait_for_end
from posesdk.gst.bindings import GLib, Gst

SERVER = Path(__file__).resolve().parents[2] / "tests/support/rtsp_server.py"


@contextmanager
def served(video: Path, seconds: float) -> Iterator[str]:
    """The address of a camera that shows the beginning of a video, over and over, for some seconds.

    The video is encoded before that, so that the server costs next to nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "camera.mkv"
        _encode(video, round(seconds * FPS), path)
        command = [sys.executable, str(SERVER), "--video", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield server.stdout.readline().strip()
            finally:
                server.kill()


def _encode(video: Path, count: int, path: Path) -> None:
    encode = f"vp8enc deadline=1 cpu-used=8 threads=2 keyframe-max-dist={FPS} target-bitrate=4000000"
    pipeline = Gst.parse_launch(f'{source_launch("source")} ! {encode} ! matroskamux ! filesink location="{path}"')
    source, pictures = pipeline.get_by_name("source"), load_pictures(video)
    pipeline.set_state(Gst.State.PLAYING)
    for index in range(count):
        buffer = pictures[index % len(pictures)].copy_region(Gst.BufferCopyFlags.MEMORY, 0, GLib.MAXSIZE)
        buffer.pts, buffer.duration = index * Gst.SECOND // FPS, Gst.SECOND // FPS
        source.emit("push-buffer", buffer)
    source.emit("end-of-stream")
    wait_for_end(pipeline, 60 + count)
    pipeline.set_state(Gst.State.NULL)
