import contextlib
import functools
import gc
import http.server
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples" / "gstreamer"
NAMES = ("reconnect", "rtsp_to_hls", "rtsp_to_webrtc", "camera_wall")
PATIENCE_S = 60
WATCH = """<script>
const tell = () => fetch("said", {method: "POST", body: document.body.innerText}).finally(() => setTimeout(tell, 200));
tell();
</script>"""
"""Sends what a page shows to its server."""
LEFT, RIGHT = (0, 159, 230), (233, 180, 86)
"""BGR of drawn limbs."""
WITH_LOG = "import logging, runpy, sys; logging.basicConfig(level='INFO'); sys.argv[:] = sys.argv[1:]; "
WITH_LOG += "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
"""Runs a sample with the SDK's log on standard error; loading a model logs one line `using`."""


class Program:
    """A sample in a process of its own; its lines of standard output and error as they come."""

    def __init__(self, name, *options):
        command = [sys.executable, "-c", WITH_LOG, str(SAMPLES / f"{name}.py"), *map(str, options)]
        path = os.pathsep.join(str(ROOT / folder) for folder in ("sdk", "runtimes"))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.lines, self.said = [], []
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._open = [self.process.stdout, self.process.stderr]

    def wait_for(self, met):
        """Reads until `met()`, or the program ends; fails after PATIENCE_S."""
        end = time.monotonic() + PATIENCE_S
        while self._open and not met():
            ready, _, _ = select.select(self._open, [], [], max(0, end - time.monotonic()))
            assert ready, f"nothing in {PATIENCE_S} s; it said {self.said}"
            for stream in ready:
                line = stream.readline()
                if line:
                    (self.lines if stream is self.process.stdout else self.said).append(line)
                else:
                    self._open.remove(stream)
        assert met(), f"it ended before that; it said {self.said}"

    def heard(self, text):
        return sum(text in line for line in self.said)

    def finish(self):
        """The exit status, once it has ended by itself."""
        self.wait_for(lambda: not self._open)
        return self.process.wait(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def frames_of(place, limit=None):
    capture = cv2.VideoCapture(str(place))
    frames = []
    while limit is None or len(frames) < limit:
        found, frame = capture.read()
        if not found:
            break
        frames.append(frame)
    capture.release()
    return frames


def limb_pixels(frame):
    """How many pixels have a colour of drawn limbs."""
    near = [np.abs(frame.astype(int) - color).max(axis=2) < 24 for color in (LEFT, RIGHT)]
    return int(np.logical_or(*near).sum())


def free_port():
    """A UDP port that is free, as is the one two above it, now."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1] & ~1
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 2))
                return port


class WatchedPages(http.server.SimpleHTTPRequestHandler):
    """A folder on the web whose pages tell what they show, again and again; `said` holds it."""

    def __init__(self, *arguments, said, **options):
        self.said = said
        super().__init__(*arguments, **options)

    def do_GET(self):
        if self.path != "/":
            return super().do_GET()
        page = (Path(self.directory) / "index.html").read_text().replace("</html>", WATCH + "</html>").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self):
        self.said.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()


@contextlib.contextmanager
def served(folder, said):
    """The folder on a web server of the loopback; what a browser shows of its page is appended to `said`."""
    handler = functools.partial(WatchedPages, directory=str(folder), said=said)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def browsing(browser, address, *, profile, log):
    """A page in a headless browser, in real time: in virtual time it may end before a video has been fetched."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    command = [browser, *options, f"--user-data-dir={profile}", "--remote-debugging-port=0", address]
    with log.open("wb") as lines, subprocess.Popen(command, stdout=lines, stderr=lines) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def camera():
    from rtsp_server import RtspServer

    server = RtspServer("--size", "160x96")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def broadcast(shared, tmp_path_factory):
    """What rtsp_to_hls.py made of two_people_1080p28.mp4: the folder, and all poses as dicts."""
    folder = tmp_path_factory.mktemp("hls")
    video, poses = shared("data", "videos", "two_people_1080p28.mp4"), folder / "poses.jsonl"
    options = (
        "--output",
        folder / "www",
        "--keep",
        0,
        "--segment",
        1,
        "--fps",
        28,
        "--bitrate",
        6000,
        "--poses",
        poses,
    )
    with Program("rtsp_to_hls", video, *options) as program:
        assert program.finish() == 0, program.said
    return folder / "www", [json.loads(line) for line in poses.read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_sample_explains_itself(name):
    with Program(name, "--help") as program:
        assert program.finish() == 0
    assert "rtsp://" in "".join(program.lines)


@pytest.mark.parametrize("name", NAMES)
def test_file_that_is_not_there_is_said(name, tmp_path):
    missing = tmp_path / "missing.mp4"
    with Program(name, missing) as program:
        assert program.finish() == 1
    assert program.said[-1].startswith(f"{missing}: no such file")


def test_poses_go_on_after_the_camera_died_with_one_load_of_the_model(camera, converted_bundle):
    camera.start()
    options = ("--model", converted_bundle, "--silence", 8, "--longest-wait", 1)
    with Program("reconnect", camera.url, *options) as program:
        program.wait_for(lambda: len(program.lines) >= 3)
        camera.stop()
        program.wait_for(lambda: program.heard("next try in 1 s") >= 2)  # and it waits while nobody answers
        before = len(program.lines)
        camera.start()
        program.wait_for(lambda: program.heard("frames arrive again") and len(program.lines) >= before + 3)
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0, program.said
    assert program.heard("using") == 1
    assert program.heard("Traceback") == 0
    results = [json.loads(line) for line in program.lines]
    times = [result["stream"]["pts_ns"] for result in results]
    assert times == sorted(times)
    assert {(result["width"], result["height"]) for result in results} == {(160, 96)}


def test_camera_that_falls_silent_is_left_and_found_again(camera, converted_bundle):
    camera.start()
    with Program("reconnect", camera.url, "--model", converted_bundle, "--silence", 2, "--longest-wait", 1) as program:
        program.wait_for(lambda: len(program.lines) >= 3)
        os.kill(camera._process.pid, signal.SIGSTOP)  # its connections stay open
        program.wait_for(lambda: program.heard("no frame for 2 s"))
        os.kill(camera._process.pid, signal.SIGCONT)
        program.wait_for(lambda: program.heard("frames arrive again"))
        program.process.send_signal(signal.SIGTERM)
        assert program.finish() == 0, program.said


def test_waits_for_a_camera_double_up_to_the_longest(converted_bundle):
    options = ("--model", converted_bundle, "--longest-wait", 2)
    with Program("reconnect", "rtsp://127.0.0.1:9/none", *options) as program:
        program.wait_for(lambda: program.heard("next try") >= 3)
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0
    waits = [re.search(r"next try in (\d+) s", line)[1] for line in program.said if "next try" in line]
    assert waits[:3] == ["1", "2", "2"]
    assert program.lines == []


def test_program_ends_after_the_seconds_that_it_was_given(converted_bundle):
    with Program("reconnect", "rtsp://127.0.0.1:9/none", "--model", converted_bundle, "--seconds", 0.2) as program:
        assert program.finish() == 0


def test_parts_that_were_replaced_are_freed(tmp_path, monkeypatch):
    from posesdk.gst.bindings import GLib, Gst

    monkeypatch.syspath_prepend(str(SAMPLES))
    from recovery import Source

    clip, freed = tmp_path / "clip.webm", []
    writer = Gst.parse_launch(f"videotestsrc num-buffers=5 ! vp8enc deadline=1 ! webmmux ! filesink location={clip}")
    writer.set_state(Gst.State.PLAYING)
    assert writer.get_bus().timed_pop_filtered(PATIENCE_S * Gst.SECOND, Gst.MessageType.EOS)
    writer.set_state(Gst.State.NULL)
    pipeline, loop = Gst.parse_launch("queue name=entry ! fakesink async=false"), GLib.MainLoop()
    source = Source(pipeline, pipeline.get_by_name("entry"), clip.as_uri(), loop=True)
    build, restarts = source.start, 10

    def counted():
        if source.restarts >= restarts:
            loop.quit()
        build()
        source._bin.weak_ref(freed.append, source.restarts)
        return False

    source.start = counted
    pipeline.set_state(Gst.State.PLAYING)
    counted()
    end = GLib.timeout_add_seconds(PATIENCE_S, loop.quit)
    loop.run()
    GLib.source_remove(end)
    source.ended = True
    source._remove()
    pipeline.set_state(Gst.State.NULL)
    gc.collect()
    assert source.frames >= 5 * restarts
    assert len(freed) >= restarts  # the last one may still be held by a message


def test_segments_hold_every_frame_of_the_file(broadcast):
    folder, poses = broadcast
    playlist = (folder / "playlist.m3u8").read_text()
    segments = re.findall(r"^segment\d+\.ts$", playlist, re.MULTILINE)
    assert len(segments) == 3  # 72 frames, a segment for every 28
    assert playlist.rstrip().endswith("#EXT-X-ENDLIST")
    assert sum(len(frames_of(folder / name)) for name in segments) == 72 == len(poses)
    assert json.loads((folder / "poses.json").read_text()) == poses[-1]


def test_frames_of_segments_differ_from_the_file_where_people_are(broadcast, shared):
    folder, poses = broadcast
    index = 40
    plain = frames_of(shared("data", "videos", "two_people_1080p28.mp4"), index + 1)[index]
    drawn = frames_of(folder / "playlist.m3u8", index + 1)[index]
    change = np.abs(drawn.astype(int) - plain.astype(int)).mean(axis=2)
    assert len(poses[index]["persons"]) == 2
    near = np.zeros(change.shape, bool)
    for person in poses[index]["persons"]:
        for x, y, _ in (point for point in person["keypoints"] if point[2] > 0.2):
            near[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = True
    assert change[near].mean() > 8 * change[~near].mean()
    assert limb_pixels(drawn) > 1000 + limb_pixels(plain)


def test_segments_have_no_hole_where_the_camera_was_away(camera, converted_bundle, tmp_path, eventually):
    poses, playlist = tmp_path / "poses.jsonl", tmp_path / "www" / "playlist.m3u8"
    options = ("--output", playlist.parent, "--poses", poses, "--segment", 1, "--fps", 15, "--keep", 0, "--port", 0)
    camera.start()
    with Program(
        "rtsp_to_hls", camera.url, "--model", converted_bundle, "--mode", "skip", "--longest-wait", 1, *options
    ) as program:
        program.wait_for(lambda: program.heard("frames arrive"))
        eventually(lambda: playlist.exists() and playlist.read_text().count("#EXTINF") >= 2)
        camera.stop()
        program.wait_for(lambda: program.heard("next try") >= 3)  # two seconds and more
        camera.start()
        program.wait_for(lambda: program.heard("frames arrive again"))
        eventually(lambda: playlist.read_text().count("#EXTINF") >= 4)
        address = re.search(r"open (http://\S+)", "".join(program.said))[1]
        with urllib.request.urlopen(f"{address}playlist.m3u8", timeout=PATIENCE_S) as answer:
            assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0, program.said
    lengths = [float(found) for found in re.findall(r"#EXTINF:([\d.]+)", playlist.read_text())]
    assert len(lengths) >= 4
    assert max(lengths) < 2
    results = [json.loads(line)["stream"]["pts_ns"] for line in poses.read_text().splitlines()]
    assert (results[-1] - results[0]) / 1e9 > sum(lengths) + 1  # the time away is in the poses' own times


def test_page_plays_the_segments(broadcast, tmp_path, eventually):
    folder, poses = broadcast
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs chromium")
    said, log = [], tmp_path / "log"
    wanted = {"playing 1920x1080", f"people at the camera: {len(poses[-1]['persons'])}"}
    with served(folder, said) as address, browsing(browser, address, profile=tmp_path / "profile", log=log):
        try:
            eventually(lambda: any(wanted <= set(text.splitlines()) for text in said))
        except AssertionError:
            pytest.fail(f"the page showed {said[-1:]}; {log.read_text(errors='replace')[-1000:]}")


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_other_clients_read_the_drawn_camera(codec, shared, tmp_path):
    video, sdp = shared("data", "videos", "two_children_540p30.mp4"), tmp_path / "poses.sdp"
    options = ("--codec", codec, "--loop", "--rtsp-port", 0, "--rtp-port", free_port(), "--sdp", sdp)
    with Program("rtsp_to_webrtc", video, *options) as program:
        program.wait_for(lambda: program.heard("frames arrive"))
        address = re.search(r"serving (rtsp://\S+)", "".join(program.said))[1]
        times = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 30_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 30_000]
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, times)
        frames = [frame for found, frame in (capture.read() for _ in range(10)) if found]
        capture.release()
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0, program.said
    assert [frame.shape for frame in frames] == 10 * [(540, 960, 3)]
    assert max(map(limb_pixels, frames)) > 500 + max(map(limb_pixels, frames_of(video)[::10]))
    assert f"a=rtpmap:96 {codec.upper()}/90000" in sdp.read_text()


def test_wall_shows_the_cameras_that_live(shared, tmp_path):
    gym, children = (
        shared("data", "videos", f"{name}.mp4") for name in ("group_exercise_720p25", "two_children_540p30")
    )
    wall = tmp_path / "wall.mp4"
    sources = (f"gym={gym}", f"children={children}", "yard=rtsp://127.0.0.1:9/none")
    with Program("camera_wall", *sources, "--output", wall, "--width", 320, "--height", 212) as program:
        program.wait_for(lambda: all(sum(name in line for line in program.lines) >= 40 for name in ("gym", "children")))
        program.wait_for(lambda: program.heard("yard: Could not open resource") > 0)
        program.process.send_signal(signal.SIGINT)
        assert program.finish() == 0, program.said
    assert program.heard("using") == 1
    assert program.heard("yard: Could not open resource") > 0
    assert {json.loads(line)["source"] for line in program.lines} == {"gym", "children"}
    frames = frames_of(wall)
    assert len(frames) > 20
    assert frames[-1].shape == (2 * 212, 2 * 320, 3)
    drawn = max(frames[len(frames) // 2 :], key=limb_pixels)
    assert limb_pixels(drawn[:212, :320]) > 100
    assert drawn[40:212, 320:].mean() > 50
    assert drawn[212 + 32 :, :320].max() < 40  # no camera: black, below its name
    assert drawn[212 : 212 + 32, :320].max() > 150


def test_wall_ends_with_its_last_file(shared):
    video = shared("data", "videos", "two_people_1080p28.mp4")
    with Program("camera_wall", video, video, "--output", "none", "--width", 160, "--height", 122) as program:
        assert program.finish() == 0, program.said
    assert {json.loads(line)["source"] for line in program.lines} == {"cam1", "cam2"}
