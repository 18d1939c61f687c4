"""Frames worked on side by side: the order, the bounds, the faults and the ends of `ResultStream`.

Long, because each way to end a stream has a test. The work is a test's own; `test_overlap.py` has a detector's.
"""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count, islice

import numpy as np
import pytest

from posesdk.poses import FrameInfo
from posesdk.streaming import READ_AHEAD, READ_AHEAD_LIVE, ResultStream, frames_at_once
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import RuntimeFault, SourceError

PATIENCE_S = 20.0
"""After which a test takes what it waits for as lost."""


def plain(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def value_of(frame: Frame) -> int:
    return int(frame.image[0, 0, 0])


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.002)


def settled(number: Callable[[], int]) -> int:
    """A number that has not changed for a while."""
    before = None
    while before != (before := number()):
        time.sleep(0.1)
    return before


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("posesdk-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    wait_for(lambda: not threads())


class Images:
    """Frames of the values 0, 1, ... for ever; notes how many were taken, and who closed them."""

    def __init__(self, last: Exception | None = None, length: int | None = None) -> None:
        self.taken, self.closed_by, self._last, self._length = 0, None, last, length

    def __iter__(self):
        return self._images()

    def _images(self):
        try:
            for value in count():
                if value == self._length:
                    break
                self.taken += 1
                yield plain(value % 256)
            if self._last is not None:
                raise self._last
        finally:
            self.closed_by = threading.current_thread().name


def live(images: Images) -> FrameStream:
    frames = (Frame(image, FrameInfo("camera", index)) for index, image in enumerate(images))
    return FrameStream("camera", frames, live=True)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_however_long_each_takes(workers):
    rng = random.Random(3)
    delays = [rng.choice([0, 0, 0.002, 0.02]) for _ in range(60)]

    def work(frame):
        time.sleep(delays[frame.info.index])
        return value_of(frame), frame.info.index

    results = list(ResultStream(Images(length=60), work, workers=workers))
    assert results == [(value, value) for value in range(60)]


def test_two_frames_are_worked_on_at_a_time():
    both = threading.Barrier(2, timeout=PATIENCE_S)
    assert list(ResultStream(Images(length=10), lambda frame: both.wait() in (0, 1), workers=2)) == [True] * 10


def test_a_detector_of_one_thread_works_on_one_frame_at_a_time():
    assert [frames_at_once(threads) for threads in (None, 1, 2, 8)] == [2, 1, 2, 2]
    busy, most = [], []

    def work(frame):
        busy.append(frame)
        most.append(len(busy))
        time.sleep(0.002)
        busy.pop()

    list(ResultStream(Images(length=10), work, workers=frames_at_once(1)))
    assert max(most) == 1


def test_nothing_is_read_before_the_first_result_is_asked_for():
    images = Images()
    with ResultStream(images, value_of):
        assert not threads()
        assert images.taken == 0


@pytest.mark.parametrize(("is_live", "ahead"), [(False, READ_AHEAD), (True, READ_AHEAD_LIVE)])
def test_a_few_frames_are_read_ahead_and_no_more(is_live, ahead, monkeypatch):
    if is_live:
        monkeypatch.setattr("posesdk.streaming.open_source", lambda images, on_fault: live(images))
    images = Images()
    with ResultStream(images, value_of) as results:
        for given in range(1, 8):
            assert next(results) == given - 1
            assert settled(lambda: images.taken) == given + ahead


@pytest.mark.parametrize("is_live", [False, True])
def test_frames_of_a_live_source_may_go_another_way(is_live, monkeypatch):
    if is_live:
        monkeypatch.setattr("posesdk.streaming.open_source", lambda images, on_fault: live(images))
    results = ResultStream(Images(length=5), lambda frame: ("file", value_of(frame)), live_work=lambda _: ("live", 0))
    assert list(results) == ([("live", 0)] * 5 if is_live else [("file", value) for value in range(5)])


def test_bad_frames_are_not_read_ahead_without_bound_either(tmp_path):
    told = []

    def names():
        for index in count():
            told.append(index)
            yield tmp_path / "none.png"

    def slow(fault):
        faults.append(fault)
        read.append(settled(lambda: len(told)))
        if len(faults) == 3:
            raise fault

    faults, read = [], []
    with pytest.raises(SourceError, match="No such file"):
        next(ResultStream(names(), value_of, on_fault=slow))
    assert read == [given + READ_AHEAD for given in range(3)]


def test_an_array_may_be_filled_again_once_it_has_been_given():
    first = threading.Event()

    def frames():
        image = plain(0)
        for value in range(20):
            image[:] = value
            yield image
            first.set()
        image[:] = 255

    def work(frame):
        assert first.wait(PATIENCE_S)
        time.sleep(0.005)
        return value_of(frame)

    assert list(ResultStream(frames(), work)) == list(range(20))


def test_an_error_of_the_work_comes_after_the_results_before_it_and_ends_the_stream():
    def work(frame):
        if frame.info.index == 5:
            raise RuntimeFault("the backend failed")
        time.sleep(0.01)
        return frame.info.index

    images, given = Images(), []
    results = ResultStream(images, work)
    with pytest.raises(RuntimeFault, match="the backend failed"):
        given.extend(results)  # extends by each before the error
    assert given == list(range(5))
    assert next(results, None) is None
    assert images.closed_by == "posesdk-reader"


@pytest.mark.parametrize("error", [SourceError("cut off"), TypeError("no image"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_of_the_source_comes_after_all_results(error):
    given = []
    with pytest.raises(type(error)) as caught:
        given.extend(ResultStream(Images(error, length=7), lambda frame: time.sleep(0.01) or value_of(frame)))
    assert caught.value is error
    assert given == list(range(7))


def test_faults_are_told_in_the_callers_thread_where_the_frames_are_missing(tmp_path):
    happened = []
    frames = [plain(0), tmp_path / "1.png", plain(2), tmp_path / "3.png", tmp_path / "4.png", plain(5)]

    def tell(fault):
        happened.append(str(fault).split("/")[-1][:5])
        assert threading.current_thread() is threading.main_thread()

    for value in ResultStream(frames, value_of, on_fault=tell):
        happened.append(value)
    assert happened == [0, "1.png", 2, "3.png", "4.png", 5]


def test_a_source_that_cannot_be_opened_fails_at_once(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        ResultStream(tmp_path / "none.mp4", value_of)


def leave_by_break(results):
    for _ in results:
        break


def leave_by_close(results):
    next(results)
    results.close()
    assert not threads()


def leave_by_the_end_of_a_block(results):
    with results:
        next(results)
    assert not threads()


def leave_in_a_cycle(results):
    next(results)
    cycle = [results]
    cycle.append(cycle)


def leave_by_an_error(results):
    with pytest.raises(ZeroDivisionError):
        list(map((1).__truediv__, results))


WAYS = [leave_by_break, leave_by_close, leave_by_the_end_of_a_block, leave_in_a_cycle, leave_by_an_error]


@pytest.mark.parametrize("leave", WAYS)
def test_a_stream_that_is_left_ends_its_threads_and_frees_the_source_in_the_reader(leave):
    images = Images()
    leave(ResultStream(images, value_of))
    gc.collect()
    wait_for(lambda: not threads())
    assert images.closed_by == "posesdk-reader"
    assert images.taken <= 1 + READ_AHEAD


def test_a_stream_that_was_closed_is_at_its_end():
    results = ResultStream(Images(), value_of)
    assert list(islice(results, 3)) == [0, 1, 2]
    results.close()
    results.close()
    assert list(results) == []
    never = ResultStream(Images(), value_of)
    never.close()
    assert list(never) == []


def test_closing_does_not_wait_for_an_iterable_that_gives_nothing(monkeypatch):
    monkeypatch.setattr("posesdk.streaming.CLOSE_S", 0.05)
    go_on = threading.Event()

    def frames():
        yield plain(1)
        assert go_on.wait(PATIENCE_S)
        yield plain(2)

    results = ResultStream(frames(), value_of)
    assert next(results) == 1
    results.close()
    assert {thread.name for thread in threads()} == {"posesdk-reader"}
    go_on.set()


def test_closing_wakes_up_whoever_waits_in_another_thread():
    go_on, ended = threading.Event(), []

    def frames():
        assert go_on.wait(PATIENCE_S)
        yield plain(1)

    results = ResultStream(frames(), value_of)
    waiting = threading.Thread(target=lambda: ended.append(list(results)))
    waiting.start()
    wait_for(lambda: len(threads()) == 3)
    threading.Timer(0.1, go_on.set).start()
    results.close()
    waiting.join(PATIENCE_S)
    assert ended == [[]]


def test_several_threads_may_take_the_results_of_one_stream():
    results, taken = ResultStream(Images(length=200), value_of), []
    takers = [threading.Thread(target=lambda: taken.extend(results)) for _ in range(4)]
    for thread in takers:
        thread.start()
    for thread in takers:
        thread.join(PATIENCE_S)
    assert sorted(taken) == list(range(200))


def test_an_interruption_ends_the_threads():
    images = Images()

    def work(frame):
        if frame.info.index == 2:
            while not stop.wait(0.001):
                pass
        return value_of(frame)

    stop = threading.Event()
    main = threading.main_thread().ident
    results, given = ResultStream(images, work), []
    threading.Timer(0.3, lambda: (signal.pthread_kill(main, signal.SIGINT), stop.set())).start()
    with pytest.raises(KeyboardInterrupt):
        given.extend(results)
    assert given == [0, 1]
    wait_for(lambda: not threads())
    assert images.closed_by == "posesdk-reader"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_is_told_that_the_stream_stays_behind():
    with ResultStream(Images(), value_of) as results:
        next(results)
        child = os.fork()
        if child == 0:
            try:
                next(results)
            except RuntimeFault:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert next(results) == 1


def test_a_frame_is_let_go_when_its_result_is_there():
    kept = []

    def work(frame):
        kept.append(weakref.ref(frame.image))
        return value_of(frame)

    with ResultStream(Images(), work) as results:
        for _ in range(30):
            next(results)
        wait_for(lambda: len(kept) >= 30 + READ_AHEAD)
        wait_for(lambda: sum(ref() is not None for ref in kept) == 0)


@pytest.mark.parametrize("bad", [None, 3])
def test_a_stream_at_its_end_leaves_nothing_to_the_garbage_collector(bad):
    class Work:
        def __call__(self, frame):
            if frame.info.index == bad:
                raise RuntimeFault("failed")
            return value_of(frame)

    gc.collect()
    gc.disable()
    try:
        results = ResultStream(Images(length=5), work := Work())
        kept = weakref.ref(work)
        with suppress(RuntimeFault):
            list(results)
        del work, results
        wait_for(lambda: kept() is None)
    finally:
        gc.enable()


def test_python_ends_though_an_iterable_gives_nothing(import_path):
    code = """
import threading
import numpy as np
from posesdk.streaming import ResultStream

def frames():
    yield np.zeros((2, 2, 3), np.uint8)
    threading.Event().wait()

held = ResultStream(frames(), lambda frame: 0)
next(held)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=import_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_python_ends_while_streams_are_under_way(import_path):
    code = """
import itertools, time, threading
import numpy as np
from posesdk.streaming import ResultStream

def frames():
    for _ in itertools.count():
        yield np.zeros((2, 2, 3), np.uint8)

held = ResultStream(frames(), lambda frame: time.sleep(0.01))
next(held)
left = ResultStream(frames(), lambda frame: time.sleep(0.3))
next(left)
del left
print("end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=import_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.fixture
def import_path() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
