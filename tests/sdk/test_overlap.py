"""`Detector.stream` and `posesdk detect`: frames side by side give what frames one by one give."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.batch import Batch
from posesdk.detector import Detector
from posesdk.sources import open_source
from posesdk.streaming import READ_AHEAD
from posesdk.video import FrameStream
from posesdk_runtimes.errors import RuntimeFault, SourceError

BOTH = ("onnxruntime", "openvino")
COUNT = 24


class Watched:
    """A trunk that does something before the run of each frame."""

    def __init__(self, runtime, before):
        self.runtime, self._before, self._lock, self.runs = runtime, before, threading.Lock(), 0
        self.inputs, self.outputs = runtime.inputs, runtime.outputs

    def run(self, feeds):
        with self._lock:
            self.runs += 1
            number = self.runs
        self._before(number)
        return self.runtime.run(feeds)

    def close(self):
        self.runtime.close()


@pytest.fixture
def video(tmp_path, spots) -> Path:
    """A spot that wanders, and another one in every other frame."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (192, 128))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG")
    for index in range(COUNT):
        writer.write(spots([(40 + 4 * index, 60), (170, 90)][: 1 + index % 2]))
    writer.release()
    return path


@pytest.fixture(params=BOTH)
def detector(request, tiny_bundle):
    pytest.importorskip(request.param, reason="backend is optional")
    with Detector(tiny_bundle, runtime=request.param) as opened:
        yield opened


@pytest.fixture
def watched(tiny_bundle):
    """`watched(before)`: a detector whose trunk calls `before(number of the run)`, and that trunk."""

    def make(before):
        detector = Detector(tiny_bundle, runtime="onnxruntime", threads=2)
        trunk = Watched(detector._pipeline.trunk, before)
        object.__setattr__(detector, "_pipeline", replace(detector._pipeline, trunk=trunk))
        return detector, trunk

    return make


def wait_until_no_thread_is_left() -> None:
    deadline = time.monotonic() + 20
    while any(thread.name.startswith("posesdk-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    return [os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()]


def assert_equal(streamed, one_by_one):
    assert len(streamed) == len(one_by_one) > 0
    for ours, theirs in zip(streamed, one_by_one, strict=True):
        assert ours.frame == theirs.frame
        assert ours.keypoints.tobytes() == theirs.keypoints.tobytes()
        assert ours.keypoint_scores.tobytes() == theirs.keypoint_scores.tobytes()


def test_a_stream_gives_bit_for_bit_what_calls_give(detector, video):
    alone = [detector(frame) for frame in open_source(video)]
    assert [len(poses) for poses in alone] == [1, 2] * (COUNT // 2)
    assert_equal(list(detector.stream(video)), alone)


def test_streams_side_by_side_do_not_mix(detector, video):
    alone = [detector(frame) for frame in open_source(video)]
    results: dict[int, list] = {}
    users = [
        threading.Thread(target=lambda key=key: results.update({key: list(detector.stream(video))})) for key in range(4)
    ]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert sorted(results) == [0, 1, 2, 3]
    for streamed in results.values():
        assert_equal(streamed, alone)


@pytest.mark.parametrize(("live", "count"), [(False, 2), (True, 1)])
def test_frames_side_by_side_share_the_graphs_and_others_have_them_whole(tiny_bundle, video, monkeypatch, live, count):
    runs = []

    class Shared(Watched):
        def share(self, count):
            return Watched(self.runtime, lambda number: runs.append(count))

    def opened(source, on_fault):
        return FrameStream("clip", iter(open_source(source)), live=live)

    monkeypatch.setattr("posesdk.streaming.open_source", opened)
    with Detector(tiny_bundle, runtime="onnxruntime", threads=2) as detector:
        trunk = Shared(detector._pipeline.trunk, lambda number: runs.append(1))
        object.__setattr__(detector, "_pipeline", replace(detector._pipeline, trunk=trunk))
        detector(next(iter(open_source(video))))
        for _ in detector.stream(video):
            pass
        Batch(detector, [], lambda fault: None, everyone=True).run([str(video)])
    assert runs == [1] + [count] * (2 * COUNT)


def test_a_slow_trunk_keeps_the_order(watched, video):
    detector, _ = watched(lambda number: time.sleep(0.02 * (number % 3 == 1)))
    with detector:
        assert [poses.frame.index for poses in detector.stream(video)] == list(range(COUNT))


def test_a_fault_of_a_backend_comes_after_the_frames_before_it(watched, video):
    def fail(number):
        if number >= 8:
            raise RuntimeFault("no memory")
        time.sleep(0.002 * (number % 2))

    detector, _ = watched(fail)
    given = []
    with detector, pytest.raises(RuntimeFault, match="no memory"):
        given.extend(poses.frame.index for poses in detector.stream(video))
    assert given == list(range(len(given)))
    assert 4 <= len(given) <= 7  # of the few frames side by side any one may have been the eighth to run
    wait_until_no_thread_is_left()
    assert str(video) not in open_files()


def test_a_cut_off_video_gives_all_its_frames_and_then_the_error(detector, video):
    os.truncate(video, video.stat().st_size // 2)
    alone, streamed = [], []
    with pytest.raises(SourceError, match="ends early"):
        alone.extend(detector(frame) for frame in open_source(video))
    with pytest.raises(SourceError, match="ends early"):
        streamed.extend(detector.stream(video))
    assert_equal(streamed, alone)


def test_a_stream_at_its_end_or_closed_has_freed_its_file(detector, video):
    results = detector.stream(video)
    assert next(results).frame.index == 0
    assert str(video) in open_files()
    results.close()
    assert str(video) not in open_files()
    ended = detector.stream(video)
    assert len(list(ended)) == COUNT
    assert str(video) not in open_files()


@pytest.mark.parametrize("adjust", [False, True])
def test_closing_a_detector_ends_its_streams(tiny_bundle, video, adjust):
    detector = Detector(tiny_bundle, runtime="onnxruntime")
    user = detector.adjusted(max_people=1) if adjust else detector
    results, ended = user.stream(video), list(user.stream(video))
    next(results)
    detector.close()
    wait_until_no_thread_is_left()
    assert str(video) not in open_files()
    with pytest.raises(RuntimeFault, match="has been closed; open it again"):
        next(results)
    assert next(results, None) is None
    assert len(ended) == COUNT


def test_closing_a_detector_wakes_up_whoever_waits_for_a_result(watched, video):
    started, go_on = threading.Event(), threading.Event()

    def hold(number):
        started.set()
        assert go_on.wait(20)

    detector, _ = watched(hold)
    threading.Thread(
        target=lambda: (started.wait(20), threading.Timer(0.1, go_on.set).start(), detector.close())
    ).start()
    with pytest.raises(RuntimeFault, match="closed"):
        list(detector.stream(video))
    wait_until_no_thread_is_left()


def test_the_time_that_a_frame_waits_is_in_no_stage(watched, video, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    detector, trunk = watched(lambda number: None)
    with detector, detector.stream(video) as results:
        next(results)
        while trunk.runs < 1 + READ_AHEAD:
            time.sleep(0.002)
        time.sleep(0.1)  # for what comes behind the trunk
        now[0] = 1000.0
        assert [sum(next(results).timing.values()) for _ in range(READ_AHEAD)] == [0.0] * READ_AHEAD


class Notes:
    """An output of `posesdk detect` that notes what it gets, and in which thread."""

    def __init__(self, happened):
        self.happened = happened

    def add(self, stream, frame, poses, everyone):
        assert threading.current_thread() is threading.main_thread()
        assert frame.info == poses.frame
        self.happened.append((Path(stream.name).name, frame.info.index, len(poses), float(frame.image.mean())))

    def close(self):
        pass


def test_a_run_over_sources_writes_frames_and_tells_faults_in_order(detector, video, tmp_path, spots):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("1.png", "3.png"):
        cv2.imwrite(str(folder / name), spots([(50, 60)]))
    (folder / "2.png").write_text("bad")
    happened = []
    batch = Batch(detector, [Notes(happened)], lambda fault: happened.append(str(fault)), everyone=True)
    batch.run([str(folder), str(tmp_path / "none.mp4"), str(video)])
    assert [event if isinstance(event, str) else event[:2] for event in happened[:3]] == [
        ("pictures", 0),
        happened[1],
        ("pictures", 2),
    ]
    assert "2.png" in happened[1]
    assert "none.mp4" in happened[3]
    frames = [(video.name, frame.info.index, 1 + index % 2) for index, frame in enumerate(open_source(video))]
    assert [event[:3] for event in happened[4:]] == frames
    assert [event[3] for event in happened[4:]] == [float(frame.image.mean()) for frame in open_source(video)]
    assert (batch.frames, batch.pictures, batch.faults) == (2 + COUNT, 2, 2)


def test_a_run_that_is_stopped_frees_its_source(detector, video):
    batch = Batch(detector, [], lambda fault: None, everyone=False)
    batch.run([str(video)], stop=lambda: batch.frames == 3)
    assert batch.frames == 3
    assert str(video) not in open_files()


def test_memory_does_not_grow_with_the_frames(detector):
    psutil = pytest.importorskip("psutil", reason="memory is read with psutil")
    image = np.zeros((1080, 1920, 3), np.uint8)  # 6 MB

    def frames(count):
        return (image for _ in range(count))

    def resident():
        return psutil.Process().memory_info().rss / 2**20

    for _ in detector.stream(frames(30)):
        pass
    before = resident()
    for _ in detector.stream(frames(100)):
        pass
    assert resident() - before < 60  # of 600 MB that went through
