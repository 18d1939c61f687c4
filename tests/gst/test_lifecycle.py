"""From NULL to PLAYING and back, shared models, and what stays of an element that is gone."""

import gc
import json
import os
import re
import subprocess
import sys
import weakref

import pytest

from element_output import push, record_of
from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

FRAME = 1_000_000_000 // 30


@pytest.fixture
def loads(monkeypatch):
    """What happened to Detectors: "open" and "close", in order."""
    from posesdk.detector import Detector

    happened = []

    def noting(word, method):
        def run(self, *args, **named):
            happened.append(word)
            return method(self, *args, **named)

        return run

    monkeypatch.setattr(Detector, "__init__", noting("open", Detector.__init__))
    monkeypatch.setattr(Detector, "close", noting("close", Detector.close))
    return happened


def test_the_model_is_loaded_at_the_start_and_freed_at_the_stop_each_time(harness, picture, loads):
    one = harness(mode="sync")
    assert loads == []
    for turn in range(1, 4):
        one.start()
        assert loads == ["open", "close"] * (turn - 1) + ["open"]
        one.set_format("RGB", 96, 64)
        push(one, picture(turn))
        one.stop()
        assert loads == ["open", "close"] * turn
    assert [record_of(buffer).index for buffer in one.buffers] == [0, 0, 0]


def test_every_run_counts_anew(harness, picture):
    one = harness(mode="sync")
    for _ in range(2):
        one.start()
        one.set_format("RGB", 96, 64)
        push(one, picture())
        assert json.loads(one.element.get_property("stats"))["frames"] == 1
        one.stop()


def test_elements_with_one_instance_id_load_one_model(harness, picture, loads):
    first, second, third = (harness(mode="sync", instance_id=name) for name in ("one", "one", "another"))
    for one in (first, second, third):
        one.start()
        one.set_format("RGB", 96, 64)
    assert loads == ["open", "open"]
    push(first, picture(1))
    push(second, picture(1))
    assert record_of(first.buffers[0]).to_dict()["persons"] == record_of(second.buffers[0]).to_dict()["persons"]
    first.stop()
    assert "close" not in loads
    push(second, picture(2))
    second.stop()
    assert loads == ["open", "open", "close"]


def test_an_instance_id_is_free_for_other_settings_when_its_last_element_has_stopped(harness):
    from posesdk.gst.bindings import Gst

    first = harness(instance_id="again")
    first.start()
    first.stop()
    assert harness(instance_id="again", threads=2).start() == Gst.StateChangeReturn.SUCCESS


def test_elements_that_share_a_model_keep_their_own_thresholds(harness, picture):
    loose, strict = (harness(mode="sync", instance_id="one", score_threshold=score) for score in (0.0, 1.0))
    for one in (loose, strict):
        one.start()
        one.set_format("RGB", 96, 64)
        push(one, picture())
    assert len(record_of(loose.buffers[0]).scores) > 0
    assert len(record_of(strict.buffers[0]).scores) == 0


@pytest.mark.parametrize("mode", ["sync", "skip", "drop"])
def test_stopping_while_the_model_is_busy_ends_when_that_frame_does(playing, picture, model, in_background, mode):
    from posesdk.gst.bindings import Gst

    one = playing(mode=mode)
    model.hold()
    pushed = in_background(one.push, picture(), 0)
    model.wait_until_busy()
    stopped = in_background(one.element.set_state, Gst.State.NULL)
    model.let()
    assert stopped() == Gst.StateChangeReturn.SUCCESS
    pushed()


@pytest.mark.parametrize("mode", ["sync", "skip", "drop"])
def test_a_listener_may_stop_the_element(playing, picture, in_background, eventually, mode):
    from posesdk.gst.bindings import Gst

    one, changes = playing(mode=mode), []
    one.element.connect("poses", lambda element, pts, text: changes.append(element.set_state(Gst.State.NULL)))
    in_background(one.push, picture(), 0)()
    eventually(lambda: changes == [Gst.StateChangeReturn.SUCCESS])
    assert one.messages(Gst.MessageType.ERROR) == []


def test_a_listener_may_stop_the_element_while_the_end_waits_for_it(playing, picture, model, in_background, eventually):
    from posesdk.gst.bindings import Gst

    one, changes = playing(mode="skip"), []
    one.element.connect("poses", lambda element, pts, text: changes.append(element.set_state(Gst.State.NULL)))
    model.hold()
    one.push(picture(), 0)
    model.wait_until_busy()
    ended = in_background(one.send, Gst.Event.new_eos())
    model.free()
    ended()
    eventually(lambda: changes == [Gst.StateChangeReturn.SUCCESS])
    assert one.messages(Gst.MessageType.ERROR) == []


def test_stopping_drops_what_waits_for_the_model(playing, picture, model, in_background):
    from posesdk.gst.bindings import Gst

    one = playing(mode="skip")
    model.hold()
    before = model.runs
    push(one, picture(0), 0)
    model.wait_until_busy()
    push(one, picture(1), FRAME)
    stopped = in_background(one.element.set_state, Gst.State.NULL)
    model.let()
    assert stopped() == Gst.StateChangeReturn.SUCCESS
    assert model.runs - before <= 2


@pytest.mark.parametrize("mode", ["sync", "skip"])
def test_elements_are_freed_with_everything_that_they_hold(harness, picture, mode):
    gone, freed = [], []
    for turn in range(20):
        one = harness(mode=mode, messages=True, instance_id="shared" if turn % 2 else "")
        one.start()
        one.set_format("RGB", 96, 64)
        push(one, picture(turn))
        one.element.weak_ref(lambda: freed.append(1))
        gone.append(weakref.ref(one.element))
        one.close()
        del one.buffers[:]
    gc.collect()
    assert [one() for one in gone] == [None] * 20
    assert len(freed) == 20


PIPELINES = """
import gc, sys
import posesdk.gst
posesdk.gst.register()
from posesdk.gst.bindings import Gst
for turn in range(4):
    for mode in ("sync", "skip"):
        text = (
            "videotestsrc num-buffers=3 pattern=ball ! video/x-raw, format=RGB, width=96, height=64 "
            f"! logocappose name=pose mode={mode} model={sys.argv[1]} runtime=onnxruntime threads=1 "
            "messages=true draw=true attach=custom+roi ! fakesink"
        )
        pipeline = Gst.parse_launch(text)
        pipeline.set_state(Gst.State.PLAYING)
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, ends)
        print(message.type == Gst.MessageType.EOS, pipeline.get_by_name("pose").props.stats)
        pipeline.set_state(Gst.State.NULL)
        pipeline.get_bus().set_flushing(True)
        del pipeline, message
        gc.collect()
Gst.deinit()
"""


def test_the_tracer_of_leaks_finds_none(converted_bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PIPELINES, str(converted_bundle)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "GST_REGISTRY": str(tmp_path / "registry.bin"),
            "GST_TRACERS": "leaks",
            "GST_DEBUG": "GST_TRACER:7",
            "GST_DEBUG_NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["True"] * 8
    leaks = [line for line in done.stderr.splitlines() if "object-alive" in line and "type-name" in line]
    alive = [found.group(1) for line in leaks if (found := re.search(r"type-name=\(string\)(\w+)", line))]
    assert alive == []


LEAVING = """
import sys, time
import posesdk.gst
posesdk.gst.register()
from posesdk.gst.bindings import Gst
pipeline = Gst.parse_launch(
    "videotestsrc ! video/x-raw,width=640,height=480 ! logocappose name=finder draw=true mode=" + sys.argv[2]
    + " model=" + sys.argv[1] + " ! logocapoverlay ! fakesink"
)
heard = []
pipeline.get_by_name("finder").connect("poses", lambda element, pts, text: heard.append(pts))
pipeline.set_state(Gst.State.PLAYING)
until = time.monotonic() + 30
while len(heard) < 3 and time.monotonic() < until:
    time.sleep(0.01)
sys.exit(3 if len(heard) >= 3 else 1)
"""


@pytest.mark.parametrize("mode", ["sync", "skip", "drop"])
def test_a_program_may_end_while_its_pipeline_plays(converted_bundle, mode):
    words = [sys.executable, "-c", LEAVING, str(converted_bundle), mode]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)
        # A library under OpenVINO complains so in containers without /sys.
        said = [line for line in done.stderr.splitlines() if not line.startswith("hwloc/")]
        assert (done.returncode, said) == (3, [])
