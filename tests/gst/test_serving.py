"""Models that several streams share, on a detector that runs when the test lets it."""

import threading
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from types import SimpleNamespace

import numpy as np
import pytest

from posesdk.detector import Detector
from posesdk.gst import loaded, serving
from posesdk.gst.loaded import batch_limit
from posesdk.gst.mailbox import Job, Worker
from posesdk.gst.serving import ModelSettings, open_client
from posesdk.poses import FrameInfo
from posesdk.video import Frame
from posesdk_runtimes.errors import BundleError, RuntimeFault

LIMIT = 10
"""Seconds after which a test that waits has failed."""


def frame(name, size=(8, 8)):
    return Frame(np.zeros((*size, 3), np.uint8), FrameInfo(name))


class Gated:
    """In place of a detector: each run waits for a permit, and gives the names of its frames for poses."""

    def __init__(self, device="cpu"):
        self.permits, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.runs, self.settings, self.opened, self.closed = [], [], 0, 0
        self.info = SimpleNamespace(model="gated", device=device)
        self.takes_batches = True

    def __call__(self, model=None, **settings):
        self.opened += 1
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def detect_all(self, image):
        assert not image.any()

    def net_size(self, size):
        return size

    def adjusted(self, **settings):
        self.settings.append(settings)
        return self

    def detect_batch(self, frames):
        names = [one.info.source for one in frames]
        self.runs.append(names)
        self.entered.release()
        assert self.permits.acquire(timeout=LIMIT)
        if any(name.startswith("bad") for name in names):
            raise RuntimeFault(f"cannot run {names}")
        return names

    def close(self):
        self.closed += 1

    def let(self, runs=1):
        self.permits.release(runs)

    def wait_for_run(self):
        assert self.entered.acquire(timeout=LIMIT)


@pytest.fixture
def gated(monkeypatch):
    """The stand-in detector, which is what every model opens as."""
    detector = Gated()
    monkeypatch.setattr(loaded, "Detector", detector)
    yield detector
    detector.let(1000)
    assert not [thread for thread in threading.enumerate() if thread.name == "posesdk gated"]
    assert not serving._shared._entries


def submit(client, name, size=(8, 8), score_threshold=None, max_people=30):
    return client.submit(frame(name, size), score_threshold=score_threshold, max_people=max_people)


def hold(client, gated, name="held"):
    """A frame that runs until the test gives a permit."""
    future = submit(client, name)
    gated.wait_for_run()
    return future


def test_a_newer_frame_takes_the_place_of_the_one_that_waits_and_its_turn(gated):
    with open_client(ModelSettings(), "a") as one, open_client(ModelSettings(), "a") as other:
        first = hold(one, gated)
        old, beside, new = submit(one, "old"), submit(other, "beside"), submit(one, "new")
        assert old.cancelled()
        with pytest.raises(CancelledError):
            old.result(0)
        assert wait([old], timeout=0).done == {old}
        gated.let(3)
        assert [future.result(LIMIT) for future in (first, new, beside)] == ["held", "new", "beside"]
    assert gated.runs == [["held"], ["new"], ["beside"]]


def test_clients_that_always_have_a_frame_are_served_equally_often(gated):
    count, finished = 41, threading.Event()

    def refill(client, name):
        if len(gated.runs) >= count:
            finished.set()
            return
        future = submit(client, name)
        future.add_done_callback(lambda done: None if done.cancelled() else refill(client, name))
        if name == "greedy":  # puts two more frames into its slot for each that is served
            submit(client, name)
            submit(client, name).add_done_callback(lambda done: None if done.cancelled() else refill(client, name))

    clients = {name: open_client(ModelSettings(), "a") for name in ("one", "two", "three", "greedy")}
    for name, client in clients.items():
        refill(client, name)
    gated.let(count + len(clients))
    assert finished.wait(LIMIT)
    for client in clients.values():
        client.close()
    served = Counter(names[0] for names in gated.runs[:count])
    assert set(served) == set(clients)
    assert max(served.values()) - min(served.values()) <= 1


def test_cancel_drops_what_waits_and_wakes_who_waits_for_it(gated):
    with open_client(ModelSettings()) as client, ThreadPoolExecutor(1) as pool:
        running, waiting = hold(client, gated), submit(client, "waiting")
        sleeper = pool.submit(waiting.exception, LIMIT)
        client.cancel()
        client.cancel()
        with pytest.raises(CancelledError):
            sleeper.result(LIMIT)
        gated.let(2)
        assert running.result(LIMIT) == "held"
        assert submit(client, "next").result(LIMIT) == "next"
    assert gated.runs == [["held"], ["next"]]


def test_a_frame_whose_caller_has_cancelled_it_is_not_run(gated):
    with open_client(ModelSettings()) as client:
        hold(client, gated)
        assert submit(client, "given up").cancel()
        gated.let(2)
        client.drain()
        assert submit(client, "next").result(LIMIT) == "next"
    assert gated.runs == [["held"], ["next"]]


def test_drain_returns_after_the_callbacks_of_what_ran(gated):
    told = []
    with open_client(ModelSettings()) as client, ThreadPoolExecutor(1) as pool:
        hold(client, gated).add_done_callback(lambda done: told.append(done.result()))
        submit(client, "waiting").add_done_callback(lambda done: told.append(done.result()))
        drained = pool.submit(lambda: (client.drain(), list(told)))
        assert not drained.done()
        gated.let(2)
        assert drained.result(LIMIT)[1] == ["held", "waiting"]
        client.drain()


@pytest.mark.parametrize(
    ("device", "batch", "sizes"), [("cpu", None, [1, 1, 1]), ("cuda:0", None, [3]), ("cpu", 2, [2, 1])]
)
def test_as_many_frames_run_at_once_as_the_device_or_the_settings_say(gated, device, batch, sizes):
    gated.info.device = device
    settings = ModelSettings(batch=batch)
    clients = [open_client(settings, "a") for _ in range(4)]
    hold(clients[0], gated)
    futures = [submit(client, str(index)) for index, client in enumerate(clients[1:])]
    gated.let(4)
    assert [future.result(LIMIT) for future in futures] == ["0", "1", "2"]
    for client in clients:
        client.close()
    assert [len(names) for names in gated.runs[1:]] == sizes


def test_only_frames_of_one_net_size_and_the_same_settings_share_a_batch(gated):
    clients = [open_client(ModelSettings(batch=8), "a") for _ in range(7)]
    hold(clients[0], gated)
    waiting = [
        ("a", {}),
        ("b", {"size": (8, 16)}),
        ("c", {"score_threshold": 0.5}),
        ("d", {}),
        ("e", {"max_people": 2}),
        ("f", {"size": (8, 16)}),
    ]
    futures = [submit(client, name, **asked) for client, (name, asked) in zip(clients[1:], waiting, strict=True)]
    gated.let(10)
    assert [future.result(LIMIT) for future in futures] == list("abcdef")
    for client in clients:
        client.close()
    assert gated.runs[1:] == [["a", "d"], ["b", "f"], ["c"], ["e"]]
    assert gated.settings[3:] == [
        {"score_threshold": 0.5, "max_people": 30},
        {"score_threshold": None, "max_people": 2},
    ]


def test_a_frame_that_fails_does_not_fail_those_beside_it(gated):
    clients = [open_client(ModelSettings(batch=8), "a") for _ in range(4)]
    hold(clients[0], gated)
    good, bad, also = (submit(client, name) for client, name in zip(clients[1:], ("good", "bad", "also"), strict=True))
    gated.let(10)
    assert (good.result(LIMIT), also.result(LIMIT)) == ("good", "also")
    with pytest.raises(RuntimeFault, match=r"cannot run \['bad'\]"):
        bad.result(LIMIT)
    assert submit(clients[2], "next").result(LIMIT) == "next"
    for client in clients:
        client.close()


def test_a_client_that_closes_waits_for_its_frame_and_leaves_the_others_alone(gated):
    one, other = open_client(ModelSettings(), "a"), open_client(ModelSettings(), "a")
    running, dropped, kept = hold(one, gated), submit(one, "dropped"), submit(other, "kept")
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(one.close)
        with pytest.raises(CancelledError):
            dropped.result(LIMIT)
        assert not closing.done()
        gated.let(2)
        closing.result(LIMIT)
    assert running.result(0) == "held"
    assert kept.result(LIMIT) == "kept"
    one.close()
    assert gated.closed == 0
    with pytest.raises(RuntimeFault, match="this client has been closed"):
        submit(one, "late")
    other.close()
    other.close()
    assert (gated.opened, gated.closed) == (1, 1)


def test_the_last_client_may_close_while_a_frame_runs_and_others_wait_for_it(gated):
    client = open_client(ModelSettings())
    running, waiting = hold(client, gated), submit(client, "waiting")
    with ThreadPoolExecutor(3) as pool:
        closing = [pool.submit(client.close), pool.submit(client.drain), pool.submit(client.close)]
        with pytest.raises(CancelledError):
            waiting.result(LIMIT)
        gated.let()
        assert len(wait(closing, LIMIT).done) == 3
    assert running.result(0) == "held"
    assert gated.closed == 1


@pytest.mark.parametrize("instance_id", ["", "a"])
def test_a_callback_may_close_its_own_client(gated, instance_id):
    client = open_client(ModelSettings(), instance_id)
    (worker,) = [thread for thread in threading.enumerate() if thread.name == "posesdk gated"]
    future = hold(client, gated)
    waiting = submit(client, "waiting")
    returned = []

    def close(done):
        client.drain()
        client.close()
        returned.append(done.result())

    future.add_done_callback(close)
    gated.let()
    worker.join(LIMIT)
    assert returned == ["held"]
    assert not worker.is_alive()
    assert waiting.cancelled()
    assert gated.closed == 1


def test_a_callback_may_close_the_client_of_another_frame_of_its_batch(gated):
    clients = [open_client(ModelSettings(batch=8), "a") for _ in range(3)]
    hold(clients[0], gated)
    one, other = submit(clients[1], "one"), submit(clients[2], "other")
    one.add_done_callback(lambda done: clients[2].close())
    gated.let(2)
    assert other.result(LIMIT) == "other"
    for client in clients:
        client.close()


def test_a_model_without_an_instance_id_is_its_clients_own(gated):
    with open_client(ModelSettings()), open_client(ModelSettings()):
        assert gated.opened == 2
    assert gated.closed == 2


def test_a_model_that_many_open_at_once_is_loaded_once(gated, monkeypatch):
    opening, go = threading.Semaphore(0), threading.Event()

    def open_slowly(*args, **settings):
        opening.release()
        assert go.wait(LIMIT)
        return gated(*args, **settings)

    monkeypatch.setattr(loaded, "Detector", open_slowly)
    with ThreadPoolExecutor(6) as pool:
        same = [pool.submit(open_client, ModelSettings(), "a") for _ in range(4)]
        other = pool.submit(open_client, ModelSettings(), "b")
        assert opening.acquire(timeout=LIMIT)
        assert opening.acquire(timeout=LIMIT)  # the other one does not wait for the first
        assert not opening.acquire(blocking=False)
        go.set()
        clients = [future.result(LIMIT) for future in (*same, other)]
    assert gated.opened == 2
    for client in clients:
        client.close()
    assert gated.closed == 2
    with open_client(ModelSettings(), "a"):
        assert gated.opened == 3


def test_a_model_that_cannot_be_loaded_fails_all_who_wait_and_is_tried_again(gated, monkeypatch):
    started, go = threading.Event(), threading.Event()

    def fail(*args, **settings):
        started.set()
        assert go.wait(LIMIT)
        raise BundleError("cannot open the bundle")

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(loaded, "Detector", fail)
        first = pool.submit(open_client, ModelSettings(), "a")
        assert started.wait(LIMIT)
        second = pool.submit(open_client, ModelSettings(), "a")
        go.set()
        for future in (first, second):
            with pytest.raises(BundleError, match="cannot open the bundle"):
                future.result(LIMIT)
    with open_client(ModelSettings(model="another"), "a"):
        assert gated.opened == 1


def test_a_model_whose_first_run_fails_is_closed(gated, monkeypatch):
    def fail(image):
        raise RuntimeFault("cannot run")

    monkeypatch.setattr(gated, "detect_all", fail)
    with pytest.raises(RuntimeFault, match="cannot run"):
        open_client(ModelSettings(), "a")
    assert gated.closed == 1


def test_an_instance_with_other_settings_is_refused_with_both(gated):
    with open_client(ModelSettings(precision="int8", threads=2), "cams"):
        with pytest.raises(ValueError, match="instance id 'cams'") as caught:
            open_client(ModelSettings(precision="fp32", threads=2), "cams")
        assert "precision='int8'" in str(caught.value)
        assert "precision='fp32'" in str(caught.value)
        assert "threads" not in str(caught.value)
        with open_client(ModelSettings(precision="fp32"), "other"):
            assert gated.opened == 2


def test_a_batch_of_no_frames_is_refused(gated):
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        open_client(ModelSettings(batch=0))
    assert gated.opened == 0


def test_a_worker_that_closes_discards_what_waits():
    entered, go, freed = threading.Event(), threading.Event(), []

    def detect(jobs):
        entered.set()
        assert go.wait(LIMIT)
        return [job.frame for job in jobs]

    worker = Worker(detect, lambda: freed.append(True))
    running, waiting = Job(frame("running"), None), Job(frame("waiting"), None)
    worker.join("client")
    worker.submit("client", running)
    assert entered.wait(LIMIT)
    worker.submit("client", waiting)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(worker.close)
        with pytest.raises(CancelledError):
            waiting.future.result(LIMIT)
        assert not freed
        go.set()
        closing.result(LIMIT)
    assert running.future.result(0) is running.frame
    assert freed == [True]
    with pytest.raises(RuntimeFault, match="closed"):
        worker.submit("client", waiting)


def test_a_worker_that_gets_too_few_results_says_so(gated):
    worker = Worker(lambda jobs: [], lambda: None)
    worker.join("client")
    job = Job(frame("one"), None)
    worker.submit("client", job)
    with pytest.raises(ValueError, match="shorter"):
        job.future.result(LIMIT)
    worker.close()


def test_poses_are_those_of_a_detector_with_the_same_settings(every_bundle, pictures):
    images = [np.ascontiguousarray(picture[0, :, :, ::-1]) for picture in pictures(3)]
    settings = ModelSettings(str(every_bundle), runtime="onnxruntime", batch=8)
    clients = [open_client(settings, "a") for _ in images]
    with Detector(every_bundle, runtime="onnxruntime", score_threshold=0.2, max_people=4) as detector:
        assert clients[0].info.variant == detector.info.variant
        assert clients[0].warm_up_ms > 0
        assert batch_limit(detector) == 1
        futures = [
            client.submit(Frame(image, FrameInfo("x", index)), score_threshold=0.2, max_people=4)
            for index, (client, image) in enumerate(zip(clients, images, strict=True))
        ]
        for index, (image, future) in enumerate(zip(images, futures, strict=True)):
            expected, poses = detector(image), future.result(LIMIT)
            assert poses.frame == FrameInfo("x", index)
            assert np.allclose(poses.keypoints, expected.keypoints, rtol=0, atol=1e-4)
    for client in clients:
        client.close()
