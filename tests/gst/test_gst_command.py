"""`posesdk gst` as a user types it."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from posesdk.commands import app
from posesdk.gst import plugin_path, why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

RUN = CliRunner()
TIME_LIMIT_S = 60
LIVE = "posesdk: live: running until the end of the stream, or Ctrl-C\n"


def gst(*words: str):
    return RUN.invoke(app, ["gst", *words])


def test_pipeline_in_quotes_runs_to_its_end_and_says_so():
    done = gst("launch", "videotestsrc num-buffers=3 ! fakesink")
    assert (done.exit_code, done.stdout) == (0, "")
    assert re.fullmatch(r"posesdk: end of stream after \d+\.\d\d s\n", done.stderr)


def test_pipeline_as_words_is_the_same_as_in_quotes(tmp_path):
    for number, words in enumerate(
        (["videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16,format=RGB ! filesink location={}"], None)
    ):
        file = tmp_path / f"{number} frames.raw"
        if words is None:
            words = shlex.split("videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16,format=RGB ! filesink")
            words.append(f"location={file}")
        else:
            words = [words[0].format(shlex.quote(str(file)).replace("'", '"'))]
        assert gst("launch", *words).exit_code == 0
        assert file.stat().st_size == 2 * 16 * 16 * 3


def test_quiet_run_prints_nothing():
    done = gst("launch", "-q", "videotestsrc", "num-buffers=1", "!", "fakesink")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_single_element_runs_until_it_fails():
    done = gst("launch", "videotestsrc")
    assert done.exit_code == 1
    assert "Internal data stream error" in done.stderr
    assert "not-linked" in done.stderr  # the debug text


@pytest.mark.parametrize(
    ("pipeline", "code", "said"),
    [
        ("videotestsrc ! no-such-element ! fakesink", 2, 'no element "no-such-element"'),
        ("videotestsrc ! fakesink no-such=1", 2, "no-such"),
        ("videotestsrc ! ! fakesink", 2, "syntax error"),
        ("filesrc location=/no/such.mp4 ! fakesink", 6, "/no/such.mp4"),
        ("videotestsrc ! logocappose model=/no/such.posebundle ! fakesink", 4, "/no/such.posebundle"),
        ("videotestsrc ! logocappose mode=fast ! fakesink", 2, "auto, sync, skip, drop"),
        ("videotestsrc ! logocappose device=cuda:77 runtime=onnxruntime ! fakesink", 3, "cuda:77"),
        ("videotestsrc num-buffers=1 ! identity error-after=1 ! fakesink", 1, "Failed after iterations"),
        ("rtspsrc location=rtsp://127.0.0.1:9/no-such ! fakesink", 6, "Could not open resource"),
        ("videotestsrc ! logocappose interval=0 ! fakesink", 2, "property 'interval'"),
        ("videotestsrc ! logocappose score-threshold=7 ! fakesink", 2, "posesdk gst inspect ELEMENT"),
        ("videotestsrc ! logocappose stats=x ! fakesink", 2, "'stats'"),
        ("videotestsrc ! logocapose ! fakesink", 2, "is logocappose meant?"),
        ("audiotestsrc ! logocappose ! fakesink", 2, "logocappose takes raw video alone: put videoconvert before it"),
        (
            "videotestsrc ! video/x-raw,format=Y42B ! logocapoverlay ! fakesink",
            2,
            "logocapoverlay takes raw video alone",
        ),
        ("videotestsrc ! video/x-raw(memory:NVMM) ! logocappose ! fakesink", 2, "nvvidconv"),
    ],
)
def test_fault_has_its_exit_code_and_is_named(pipeline, code, said):
    done = gst("launch", pipeline)
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert done.stderr.removeprefix(LIVE).startswith("posesdk: error: ")


def test_damaged_bundle_is_a_bad_model_and_no_traceback(tmp_path):
    bundle = tmp_path / "bad.posebundle"
    bundle.write_bytes(b"not a zip")
    done = gst("launch", f"videotestsrc ! logocappose model={bundle} ! fakesink")
    assert done.exit_code == 4
    assert "bad.posebundle" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_element_of_a_known_package_is_named_with_it(monkeypatch):
    from posesdk.gst import plugin_packages

    monkeypatch.setitem(plugin_packages._PACKAGE, "some-decoder", "gstreamer1.0-libav")
    assert "apt-get install gstreamer1.0-libav" in gst("launch", "videotestsrc ! some-decoder ! fakesink").stderr


def test_verbose_run_shows_formats_on_standard_error():
    done = gst("launch", "-v", "videotestsrc num-buffers=1 ! video/x-raw,format=NV12 ! fakesink name=out")
    assert done.stdout == ""
    assert "GstFakeSink:out.GstPad:sink: caps = video/x-raw, format=(string)NV12" in done.stderr


def test_messages_of_elements_are_lines_on_standard_output():
    pipeline = "videotestsrc num-buffers=2 ! video/x-raw,width=64,height=64 ! videoconvert ! logocappose messages=true"
    words = f"{pipeline} mode=sync name=finder ! fakesink"
    assert gst("launch", words).stdout == ""
    lines = gst("launch", "--messages", words).stdout.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["finder: logocappose"] * 2


@pytest.fixture
def start():
    """`start(words...)`: a process of its own, which an interrupt reaches and which does not outlive the test."""
    started = []

    def run(*words):
        program = [sys.executable, "-c", "from posesdk.cli import main; main()", "gst", "launch", *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for_bytes(file, least: int) -> None:
    until = time.monotonic() + TIME_LIMIT_S
    while not file.exists() or file.stat().st_size < least:
        assert time.monotonic() < until, f"{file} does not grow"
        time.sleep(0.05)


def is_whole(file) -> bool:
    """Whether a reader of MOV finds the index, which is written at the end."""
    return gst("launch", "-q", f"filesrc location={file} ! qtdemux ! fakesink").exit_code == 0


@pytest.mark.parametrize(("options", "whole"), [((), False), (("-e",), True)], ids=["plain", "eos-on-shutdown"])
def test_interrupt_ends_a_live_run_with_130_and_finishes_files_if_asked(start, tmp_path, options, whole):
    file = tmp_path / "live.mov"
    source = "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! jpegenc ! qtmux ! filesink"
    process = start(*options, f"{source} location={file} buffer-mode=unbuffered")
    wait_for_bytes(file, 2000)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert is_whole(file) is whole


def test_second_interrupt_does_not_wait_for_the_end_of_the_stream(start, tmp_path):
    """A valve that drops everything lets no end through: only the second Ctrl-C or the time limit ends the run."""
    file = tmp_path / "passed"
    source = (
        "videotestsrc is-live=true ! tee name=t ! queue ! valve drop=true drop-mode=drop-all ! fakesink async=false"
    )
    process = start("-e", f"{source} t. ! queue ! filesink buffer-mode=unbuffered location={file}")
    wait_for_bytes(file, 1)
    process.send_signal(signal.SIGINT)
    line = ""
    while "Ctrl-C again" not in line:
        line = process.stderr.readline()
        assert line
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=TIME_LIMIT_S) == 130


def test_error_with_eos_on_shutdown_finishes_the_file_and_keeps_the_code(tmp_path):
    file = tmp_path / "cut.mov"
    source = "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=64 ! tee name=t"
    branches = (
        f"t. ! queue ! jpegenc ! qtmux ! filesink location={file} t. ! queue ! identity error-after=20 ! fakesink"
    )
    assert gst("launch", "-e", f"{source} {branches}").exit_code == 1
    assert is_whole(file)


def test_inspect_lists_the_elements():
    done = gst("inspect")
    assert done.exit_code == 0
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["logocappose", "logocapposejson", "logocapoverlay"]


def test_inspect_of_an_unknown_element_is_a_usage_error():
    done = gst("inspect", "no-such-element")
    assert done.exit_code == 2
    assert 'no element "no-such-element"' in done.stderr


@pytest.mark.parametrize("name", ["fakesink", "videoconvert", "queue", "capsfilter", "videoflip", "vp8enc", "udpsrc"])
def test_inspect_says_of_gstreamers_elements_what_its_own_tool_says(name):
    """Names, blurbs, flags, kinds, ranges, defaults, pads, formats and signals; order and spaces are not compared."""
    theirs = subprocess.run(["gst-inspect-1.0", name], capture_output=True, text=True, timeout=60, check=False)
    if theirs.returncode != 0:
        pytest.skip(f"{name} is not installed")
    own = gst("inspect", name).stdout
    assert facts(own) == facts(theirs.stdout)
    assert facts(own)


def facts(text: str) -> list[str]:
    patterns = (
        r"^  (?:Rank|Long-name|Klass|Description|Author|Name|Filename|Version|License) .*",
        r"^ +\+----.*",
        r"^  \w+ template: .*\n.*Availability: .*",
        r"^      [\w/-]+(?:\(.*\))?$",
        r"^ +[\w-]+: [{\[].*",
        r"^  [\w-]+ *: .*\n +flags: .*\n +(?:Boolean|Enum|Double|Float|(?:Unsigned )?Integer|String).*",
        r'^  "[\w-]+" : .*',
    )
    found = [one for pattern in patterns for one in re.findall(pattern, text, re.MULTILINE)]
    # Their tool writes a signal's arguments below each other, and the type before each value of a list.
    return sorted(
        " ".join(one.replace("(string)", "").split(" (GstElement")[0].split()).replace(" :", ":") for one in found
    )


def test_inspect_shows_range_default_mutability_and_signal():
    text = gst("inspect", "logocappose").stdout
    found = dict(re.findall(r"^  ([\w-]+) +: .*\n +(flags: .*\n.*)", text, re.MULTILINE))
    assert "changeable only in NULL or READY state" in found["model"]
    assert "changeable in NULL, READY, PAUSED or PLAYING state" in found["max-people"]
    assert "Range: 1 - 1000 Default: 30" in found["max-people"]
    assert '"poses" :  void user_function (GstElement* object, guint64 arg0, gchararray arg1' in text
    assert "format: { RGB, BGR, RGBx, BGRx, RGBA, BGRA, NV12, I420, GRAY8 }" in text


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_env_is_for_eval_and_keeps_what_was_set(shell, monkeypatch):
    monkeypatch.delenv("GST_PLUGIN_PATH_1_0", raising=False)
    monkeypatch.setenv("GST_PLUGIN_PATH", "/a b:/c")
    line = gst("env").stdout
    done = subprocess.run(
        [shell, "-c", f'{line} printf %s "$GST_PLUGIN_PATH"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{plugin_path()}:/a b:/c"
    monkeypatch.setenv("GST_PLUGIN_PATH", done.stdout)
    assert gst("env").stdout == line


def test_env_sets_the_variable_that_gstreamer_reads_first(monkeypatch):
    monkeypatch.setenv("GST_PLUGIN_PATH_1_0", "/x")
    monkeypatch.setenv("GST_PLUGIN_PATH", "/y")
    assert gst("env").stdout == f"export GST_PLUGIN_PATH_1_0={plugin_path()}:/x\n"


def test_without_gstreamer_the_commands_end_with_code_3_and_the_remedy(monkeypatch):
    from posesdk.gst import availability

    obstacle = availability.Obstacle("Python finds no module gi", "apt-get install python3-gst-1.0")
    monkeypatch.setattr("posesdk.gst.find_obstacle", lambda: obstacle)
    for words in (("launch", "fakesrc ! fakesink"), ("inspect",)):
        done = gst(*words)
        assert done.exit_code == 3
        assert "apt-get install python3-gst-1.0" in done.stderr


@pytest.fixture
def pipeline():
    """A live pipeline that has no end of its own."""
    from posesdk.gst.launch import parse_pipeline

    made = parse_pipeline(["videotestsrc is-live=true ! fakesink name=out"])
    yield made
    from posesdk.gst.bindings import Gst

    made.set_state(Gst.State.NULL)


def test_pipeline_that_loses_its_clock_is_paused_and_played_again(pipeline):
    from posesdk.gst.bindings import GLib, Gst
    from posesdk.gst.launch import LaunchOptions, launch

    states = []
    change = pipeline.set_state
    pipeline.set_state = lambda state: (states.append(state), change(state))[1]
    messages = [Gst.Message.new_clock_lost(pipeline, Gst.SystemClock.obtain()), Gst.Message.new_eos(pipeline)]

    def act() -> bool:  # the main context has its turn, too: some elements live on it
        if len(messages) == 2 and pipeline.current_state != Gst.State.PLAYING:
            return True
        pipeline.get_bus().post(messages.pop(0))
        return bool(messages)

    GLib.timeout_add(50, act)
    assert launch(pipeline, LaunchOptions(quiet=True)) == 0
    names = [state.value_nick for state in states]
    assert names == ["paused", "playing", "paused", "playing", "null"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("videotestsrc is-live=true", ["paused", "playing", "null"]),
        ("videotestsrc", ["paused", "playing", "paused", "playing", "null"]),
    ],
    ids=["live", "file"],
)
def test_pipeline_rests_while_it_fills_its_queues_unless_it_is_live(source, expected):
    from posesdk.gst.bindings import GLib, Gst
    from posesdk.gst.launch import LaunchOptions, launch, parse_pipeline

    made = parse_pipeline([f"{source} ! fakesink sync=true"])
    states = []
    change = made.set_state
    made.set_state = lambda state: (states.append(state), change(state))[1]
    percents = [40, 70, 100]

    def act() -> bool:
        if len(percents) == 3 and made.current_state != Gst.State.PLAYING:
            return True
        message = Gst.Message.new_buffering(made, percents.pop(0)) if percents else Gst.Message.new_eos(made)
        return made.get_bus().post(message) and message.type != Gst.MessageType.EOS

    GLib.timeout_add(100, act)
    assert launch(made, LaunchOptions(quiet=True)) == 0
    assert [state.value_nick for state in states] == expected


def test_state_that_an_element_asks_for_is_set(pipeline):
    from posesdk.gst.bindings import GLib, Gst
    from posesdk.gst.launch import LaunchOptions, launch

    asked = [Gst.Message.new_request_state(pipeline, Gst.State.PAUSED)]
    seen = []

    def act() -> bool:
        if asked and pipeline.current_state == Gst.State.PLAYING:
            pipeline.get_bus().post(asked.pop())
            return True
        if pipeline.target_state != Gst.State.PAUSED:
            return True
        seen.append(pipeline.target_state)
        pipeline.get_bus().post(Gst.Message.new_eos(pipeline))
        return False

    GLib.timeout_add(50, act)
    assert launch(pipeline, LaunchOptions(quiet=True)) == 0
    assert seen


def test_element_that_refuses_to_start_and_says_nothing_is_a_failure(capsys):
    from posesdk.gst.bindings import Gst
    from posesdk.gst.launch import LaunchOptions, launch

    class Silent(Gst.Bin):
        def do_change_state(self, transition):
            return Gst.StateChangeReturn.FAILURE

    made = Gst.Pipeline.new(None)
    made.add(Silent())
    assert launch(made, LaunchOptions()) == 1
    assert "does not start, and no element says why" in capsys.readouterr().err


def test_decoder_that_is_missing_is_named_with_its_package(capsys):
    from posesdk.gst.bindings import Gst
    from posesdk.gst.bus_faults import report_plugin_missing

    report_plugin_missing(Gst.Structure.from_string('missing-plugin, name=(string)"H.264 (High Profile) decoder"')[0])
    assert "H.264 (High Profile) decoder; run: apt-get install gstreamer1.0-libav" in capsys.readouterr().err
