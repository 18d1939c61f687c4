import os
import socket
import struct
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.sources import open_source
from posesdk_runtimes.errors import SourceError

FPS = 12.5


def write_video(path: Path, count: int, codec: str = "MJPG") -> Path:
    """Frames that are brighter by 5 each, on noise, so that every frame takes about as many bytes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    noise = np.random.default_rng(0).integers(0, 20, (48, 64, 3))
    for index in range(count):
        writer.write((noise + 5 * index).astype(np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "FFV1")])
def test_frames_come_in_order_with_the_time_stamps_of_the_container(tmp_path, name, codec):
    path = write_video(tmp_path / name, 20, codec)
    stream = open_source(path)
    assert (stream.count, stream.fps, stream.live, stream.pictures) == (20, FPS, False, False)
    frames = list(stream)
    assert [frame.info.index for frame in frames] == list(range(20))
    assert [frame.info.pts for frame in frames] == pytest.approx([index / FPS for index in range(20)], abs=1e-3)
    brightness = [frame.image.mean() for frame in frames]
    assert brightness == pytest.approx([10 + 5 * index for index in range(20)], abs=3)
    assert {frame.info.source for frame in frames} == {str(path)}


def test_a_video_that_says_how_it_was_held_comes_upright(tmp_path):
    path = write_video(tmp_path / "turned.mp4", 3, "mp4v")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12: the matrix of a version 0 track header
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    assert [frame.image.shape for frame in open_source(path)] == [(64, 48, 3)] * 3


def test_a_cut_off_video_gives_what_is_there_and_then_says_so(tmp_path):
    path = write_video(tmp_path / "cut.avi", 40)
    os.truncate(path, path.stat().st_size // 2)
    faults = []
    frames = list(open_source(path, faults.append))
    assert 10 < len(frames) < 30
    (fault,) = faults
    assert f"{len(frames)} of 40 frames" in str(fault)
    again = iter(open_source(path))
    assert [next(again).info.index for _ in frames] == list(range(len(frames)))
    with pytest.raises(SourceError, match="ends early"):
        next(again)


def test_a_video_comes_whole_through_a_pipe(tmp_path):
    data = write_video(tmp_path / "a.avi", 20).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    frames = list(open_source(tmp_path / "pipe"))
    writer.join()
    assert len(frames) == 20


def test_a_whole_video_raises_nothing_at_its_end(tmp_path):
    for count in (1, 2, 5, 40):
        assert len(list(open_source(write_video(tmp_path / "whole.avi", count)))) == count


def test_a_cut_off_video_without_its_index_cannot_be_opened(tmp_path):
    path = write_video(tmp_path / "cut.mp4", 40, "mp4v")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SourceError, match="cut off") as caught:
        open_source(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_video_cannot_be_opened(tmp_path):
    path = tmp_path / "no.mp4"
    path.write_bytes(b"\0" * 5000)
    with pytest.raises(SourceError, match="cannot open video"):
        open_source(path)


def test_a_camera_that_is_not_there_is_one_clear_line():
    for source in (99, "99"):
        with pytest.raises(SourceError, match="cannot open camera 99") as caught:
            open_source(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [-1, -3, 100, 2**40, str(2**40)])
def test_a_number_that_no_camera_has_does_not_reach_opencv(source):
    """OpenCV ends the process at -1, takes 100 for another backend, and has no word for 2**40."""
    with pytest.raises(SourceError, match="expected a number from 0 to 99"):
        open_source(source)


def test_a_stream_that_does_not_answer_is_named_without_its_password():
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:9/cam") as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/cam")
    assert "secret" not in str(caught.value)
    assert time.monotonic() - start < 20


def test_a_stream_that_stays_silent_is_given_up(monkeypatch):
    monkeypatch.setattr("posesdk.video.WAIT_MS", 300)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection and says nothing
        start = time.monotonic()
        with pytest.raises(SourceError, match="no answer"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam")
        assert time.monotonic() - start < 10


def test_a_video_closed_halfway_frees_its_file(tmp_path):
    path = write_video(tmp_path / "a.avi", 10)
    with open_source(path) as stream:
        next(iter(stream))
        assert str(path) in open_files()
    assert str(path) not in open_files()


def open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    return [os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()]
