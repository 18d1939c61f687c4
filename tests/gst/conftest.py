"""Elements between bare pads, with a tiny model that tests can hold up or break."""

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

PATIENCE_S = 20
"""A wait that takes longer fails; nothing of the tests takes a tenth of it."""


@pytest.fixture
def gst():
    """The bindings' module Gst; the elements are registered."""
    import posesdk.gst
    from posesdk.gst.bindings import Gst

    posesdk.gst.register()
    return Gst


@pytest.fixture
def harness(gst, request) -> Iterator[Callable]:
    """`harness(mode="sync", live=False, clock=None, **properties)`: a PadHarness around a logocappose, not started.

    Its model is the tiny one unless `model` is given, its runtime ONNX Runtime with one thread. What is made is closed.
    """
    from pad_harness import PadHarness

    made = []

    def make(factory="logocappose", *, live=None, clock=None, latency=(0, gst.CLOCK_TIME_NONE), **properties):
        element = gst.ElementFactory.make(factory)
        if factory == "logocappose":
            chosen = {"runtime": "onnxruntime", "threads": 1, **properties}
            if "model" not in chosen:
                chosen["model"] = str(request.getfixturevalue("converted_bundle"))
        else:
            chosen = properties
        for name, value in chosen.items():
            element.set_property(name.replace("_", "-"), value)
        made.append(PadHarness(element, live=live, clock=clock, latency=latency))
        return made[-1]

    yield make
    for one in made:
        if one.element is not None:
            one.close()


@pytest.fixture
def playing(gst, harness) -> Callable:
    """`playing(format="RGB", size=(96, 64), ...)`: as `harness(...)`, started, and with its frames announced."""

    def make(format="RGB", size=(96, 64), **settings):
        one = harness(**settings)
        result = one.start()
        assert result == gst.StateChangeReturn.SUCCESS, [
            str(m.parse_error()) for m in one.messages(gst.MessageType.ERROR)
        ]
        assert one.set_format(format, *size)
        return one

    return make


@pytest.fixture
def picture() -> Callable:
    """`picture(seed, width=96, height=64)`: blocks of colour (H, W, 3) BGR, in which the tiny model finds people."""

    def make(seed=0, width=96, height=64):
        rows, columns = -(-height // 8), -(-width // 8)
        blocks = np.random.default_rng(seed).integers(16, 236, (rows, columns, 3)).astype(np.uint8)
        return np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])

    return make


@pytest.fixture
def eventually() -> Callable:
    """`eventually(claim)`: returns as soon as the claim is true; fails when it never becomes so."""

    def wait(claim):
        end = time.monotonic() + PATIENCE_S
        while not claim():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.002)

    return wait


@pytest.fixture
def in_background() -> Iterator[Callable]:
    """`in_background(f, *args)`: runs it in a thread; the call that it returns waits for the result."""
    threads = []

    def start(function, *args, **named):
        result = []
        thread = threading.Thread(target=lambda: result.append(function(*args, **named)), daemon=True)
        thread.start()
        threads.append(thread)

        def finish():
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"{function} does not return"
            return result[0]

        finish.running = thread.is_alive
        return finish

    yield start
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Model:
    """What stands before every inference of every Detector: counts them, holds them up, breaks them.

    `seen` is the last picture that came to a Detector.
    """

    def __init__(self):
        self.runs, self.seen = 0, None
        self._before = lambda: None
        self._entered, self._passes = threading.Semaphore(0), threading.Semaphore(0)

    def hold(self):
        """From now on an inference waits for `let`."""
        self._before = self._wait

    def let(self, count=1):
        """Lets so many inferences go on."""
        for _ in range(count):
            self._passes.release()

    def free(self):
        """Lets all of them go on."""
        self._before = lambda: None
        self.let(100)

    def wait_until_busy(self):
        """Returns when one more inference has begun since the last call."""
        assert self._entered.acquire(timeout=PATIENCE_S), "no inference began"

    def fail(self, error):
        """From now on an inference raises that error."""

        def broken():
            raise error

        self._before = broken

    def enter(self, frames):
        self.runs += 1
        last = frames[-1] if isinstance(frames, list | tuple) else frames
        self.seen = getattr(last, "image", last)
        self._before()

    def _wait(self):
        self._entered.release()
        assert self._passes.acquire(timeout=PATIENCE_S), "the test let no inference go on"


@pytest.fixture
def model(monkeypatch, harness) -> Iterator[Model]:
    """The control over inferences; those of the warm-up count, too. Stands before elements are closed."""
    from posesdk.detector import Detector

    control, inside = Model(), threading.local()

    def guarded(method):
        def run(self, *args, **named):
            outermost = not getattr(inside, "now", False)
            if outermost:
                control.enter(args[0])
            inside.now = True
            try:
                return method(self, *args, **named)
            finally:
                inside.now = not outermost

        return run

    for name in ("__call__", "detect_all", "detect_batch"):
        if hasattr(Detector, name):
            monkeypatch.setattr(Detector, name, guarded(getattr(Detector, name)))
    yield control
    control.free()


@pytest.fixture
def load(monkeypatch) -> Callable:
    """`load("fall_alarm")`: the module of a sample, which finds its neighbours as a program does."""
    from sample_programs import SAMPLES

    monkeypatch.syspath_prepend(SAMPLES)
    return importlib.import_module


@pytest.fixture(scope="session")
def clip(shared, tmp_path_factory) -> Path:
    """The first frames of two_people_1080p28.mp4, as they are."""
    from posesdk.gst.bindings import Gst
    from sample_programs import CLIP, LIMIT

    video, path = shared("data", "videos", "two_people_1080p28.mp4"), tmp_path_factory.mktemp("clip") / "clip.mp4"
    cut = f"qtdemux ! h264parse ! identity eos-after={CLIP + 1} ! mp4mux"
    cutter = Gst.parse_launch(f'filesrc location="{video}" ! {cut} ! filesink location="{path}"')
    cutter.set_state(Gst.State.PLAYING)
    message = cutter.get_bus().timed_pop_filtered(LIMIT * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    cutter.set_state(Gst.State.NULL)
    assert message is not None
    assert message.type == Gst.MessageType.EOS, message.parse_error()
    return path
