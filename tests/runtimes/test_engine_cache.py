"""Engines are built once, found again, rebuilt when damaged or outdated - and every way a build can end is an error.

The builder is a script that obeys the protocol of `engines.build` and ends as it is told.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posesdk_runtimes.engines.cache import EngineCache, default_cache_folder
from posesdk_runtimes.engines.engine import Engine, EngineOptions, ensure_engine
from posesdk_runtimes.engines.key import Machine, l4t_release, make_key
from posesdk_runtimes.engines.memory import check_memory, free_memory, workspace_within
from posesdk_runtimes.engines.process import BuildProgress
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange
from posesdk_runtimes.errors import ArtifactError, EngineBuildError, MissingDependencyError

BUILDER = """
import hashlib, json, os, signal, subprocess, sys, time
job, (mode, calls) = json.load(sys.stdin), sys.argv[1:]
with open(calls, "a") as file:
    file.write(json.dumps({**job, "pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}) + "\\n")
def say(**event):
    print(json.dumps(event), flush=True)
say(event="progress", phase="building", part=0.25)
data = b"engine of " + job["onnx"].encode()
done = {"event": "done", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
if mode == "oom":
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "oom-in-shell":
    sys.exit(137)
elif mode == "abort":
    os.abort()
elif mode == "no-memory-in-python":
    raise MemoryError
elif mode == "exception":
    raise ValueError("a bug of the builder")
elif mode == "silent":
    time.sleep(200)
elif mode == "leaves-a-child":
    subprocess.Popen(["sleep", "200"])
    sys.exit(3)
elif mode == "empty":
    sys.exit(0)
elif mode == "noise":
    print("a library that prints")
elif mode == "slow":
    time.sleep(0.6)
elif mode not in ("good", "cut", "crash-at-the-end"):
    say(event="error", reason=mode, message="the builder's own words")
    sys.exit(1)
with open(job["output"], "wb") as file:
    file.write(data[:5] if mode == "cut" else data)
say(**done)
if mode == "crash-at-the-end":
    os.abort()
"""
PATIENCE = 100.0
"""Seconds for what takes a moment on an idle machine; a busy one needs many to start a process."""
ORIN = Machine(tensorrt="10.3.0", cuda_driver="12.6", gpu="Orin", compute_capability="8.7", l4t="36.4.3")


class Bench:
    """One graph, one cache, and the builder with its record of calls."""

    def __init__(self, folder: Path) -> None:
        self.graph, self.cache, self.calls = folder / "trunk.onnx", folder / "engines", folder / "calls"
        self.graph.write_bytes(b"not read by this builder")
        (folder / "builder.py").write_text(BUILDER)
        self.script = str(folder / "builder.py")
        self.programs: list[subprocess.Popen[str]] = []

    def options(self, mode: str = "good", **changes: Any) -> EngineOptions:
        command = (sys.executable, self.script, mode, str(self.calls))
        known = {"cache": self.cache, "machine": ORIN, "free": (8000, 8000), "command": command, "timeout": PATIENCE}
        return EngineOptions(**{**known, **changes})

    def ensure(self, mode: str = "good", **changes: Any) -> Engine:
        return ensure_engine(self.graph, options=self.options(mode, **changes))

    @property
    def builds(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    @property
    def files(self) -> set[str]:
        return {path.suffix or path.name for path in self.cache.iterdir()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for program in made.programs:
        program.kill()
        program.communicate()


def test_an_engine_is_built_once_and_then_found(bench: Bench) -> None:
    first, second = bench.ensure(), bench.ensure()
    assert first.path.read_bytes() == b"engine of " + str(bench.graph).encode()
    assert first.path.name == f"{first.key.digest}.engine"
    assert (first.reason, second.reason) == ("no engine of this graph has been built here", "")
    assert second.path == first.path
    assert len(bench.builds) == 1
    assert bench.files == {".engine", ".json", ".lock"}
    record = json.loads(first.path.with_suffix(".json").read_text())
    assert record["key"]["tensorrt"] == "10.3.0"
    assert record["size"] == first.size == first.path.stat().st_size


RANGE = ShapeRange((1, 32), (1, 64), (2, 96))
OTHER_RANGE = ShapeRange((1, 32), (1, 64), (2, 128))
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "TensorRT": ({"machine": replace(ORIN, tensorrt="10.7.0")}, "TensorRT 10.3.0 -> 10.7.0"),
    "driver": ({"machine": replace(ORIN, cuda_driver="12.8")}, "CUDA driver 12.6 -> 12.8"),
    "GPU": (
        {"machine": replace(ORIN, gpu="Thor", compute_capability="11.0")},
        "GPU Orin -> Thor, compute capability 8.7 -> 11.0",
    ),
    "L4T": ({"machine": replace(ORIN, l4t="")}, "L4T 36.4.3 -> none"),
    "shapes": (
        {"recipe": GraphRecipe({"image": OTHER_RANGE})},
        "shapes image=1x32/1x64/2x96 -> image=1x32/1x64/2x128",
    ),
    "typing": ({"recipe": GraphRecipe({"image": RANGE}, strongly_typed=False)}, "typing strong -> weak"),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_what_has_changed_since_the_last_build_is_named(bench: Bench, change: dict[str, Any], named: str) -> None:
    before = {"recipe": GraphRecipe({"image": RANGE})}
    bench.ensure(**before)
    assert bench.ensure(**{**before, **change}).reason == f"built before, but {named}"
    assert bench.ensure(**before).reason == ""


def test_a_change_of_the_graph_is_named_by_its_label(bench: Bench) -> None:
    bench.ensure(label="nano/trunk")
    bench.graph.write_bytes(b"converted again")
    assert bench.ensure(label="small/trunk").reason == "no engine of this graph has been built here"
    bench.graph.write_bytes(b"and again")
    reason = bench.ensure(label="nano/trunk").reason
    assert reason.startswith("built before, but graph ")
    assert "->" in reason


def test_the_nearest_of_several_engines_is_compared(bench: Bench) -> None:
    bench.ensure(machine=replace(ORIN, tensorrt="8.6.2", cuda_driver="11.4", l4t="35.4.1"))
    bench.ensure()
    assert bench.ensure(machine=replace(ORIN, tensorrt="10.7.0")).reason.endswith("but TensorRT 10.3.0 -> 10.7.0")


def test_weights_beside_the_graph_belong_to_its_key(bench: Bench) -> None:
    plain = make_key(bench.graph, "f32", None, ORIN)
    bench.graph.with_name("trunk.onnx.data").write_bytes(b"weights")
    assert make_key(bench.graph, "f32", None, ORIN).onnx_sha256 != plain.onnx_sha256


def test_the_workspace_is_no_part_of_the_key(bench: Bench) -> None:
    bench.ensure(workspace_mib=32)
    assert bench.ensure(workspace_mib=512).reason == ""
    assert bench.builds[0]["workspace_mib"] == 32


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"damaged \(\d+ bytes instead of"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), r"damaged \(another sha256"),
        (lambda path: path.unlink(), r"damaged \(.*No such file"),
        (lambda path: path.with_suffix(".json").write_text("{"), "no engine of this graph"),
        (lambda path: path.with_suffix(".json").unlink(), "no engine of this graph"),
    ],
    ids=["cut", "changed", "gone", "record broken", "record gone"],
)
def test_a_damaged_engine_is_built_again(bench: Bench, damage: Callable[[Path], object], reason: str) -> None:
    path = bench.ensure().path
    whole = path.read_bytes()
    damage(path)
    again = bench.ensure()
    assert again.path.read_bytes() == whole
    assert re.search(reason, again.reason)
    assert bench.ensure().reason == ""


ENDS = {
    "oom": ("memory", "lack of memory; close other programs, add swap"),
    "oom-in-shell": ("memory", "add swap"),
    "memory": ("memory", "the builder's own words; close other programs"),
    "no-memory-in-python": ("memory", "ended with code 1: MemoryError; close other programs"),
    "abort": ("crash", r"crashed with signal 6 \(Aborted\)"),
    "exception": ("crash", "ended with code 1: ValueError: a bug of the builder"),
    "leaves-a-child": ("crash", "ended with code 3"),
    "empty": ("crash", "ended with code 0: no message"),
    "cut": ("write", r"not whole \(5 bytes instead of"),
    "parse": ("parse", "the builder's own words; upgrade TensorRT"),
    "precision": ("precision", "another variant"),
    "build": ("build", "use another runtime"),
}


@pytest.mark.parametrize(("mode", "expected"), ENDS.items(), ids=ENDS)
def test_a_build_that_fails_says_why_and_leaves_nothing(bench: Bench, mode: str, expected: tuple[str, str]) -> None:
    reason, message = expected
    start = time.monotonic()
    with pytest.raises(EngineBuildError, match=message) as caught:
        bench.ensure(mode)
    assert caught.value.reason == reason
    assert caught.value.exit_code == 3
    assert bench.files == {".lock"}
    assert time.monotonic() - start < 50  # not as long as what it has left behind
    assert bench.ensure().path.is_file()  # the next try is not in its way


def test_a_library_that_is_missing_is_no_build_error(bench: Bench) -> None:
    with pytest.raises(MissingDependencyError, match="the builder's own words"):
        bench.ensure("missing")


@pytest.mark.parametrize("mode", ["noise", "crash-at-the-end"])
def test_what_is_printed_or_goes_wrong_besides_does_no_harm(bench: Bench, mode: str) -> None:
    assert bench.ensure(mode).path.is_file()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_silent_build_ends_at_the_time_limit(bench: Bench) -> None:
    heard: list[BuildProgress] = []
    start = time.monotonic()
    with pytest.raises(EngineBuildError, match=r"more than 4 s and was stopped") as caught:
        bench.ensure("silent", timeout=4, on_progress=heard.append)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - start < 50
    assert not _alive(bench.builds[0]["pid"])
    assert bench.files == {".lock"}
    seconds = [progress.seconds for progress in heard]
    assert len(seconds) >= 3  # it was heard of while it said nothing
    assert seconds == sorted(seconds)
    assert heard[-1].part == 0.25


def test_an_interrupt_ends_the_build_and_leaves_nothing(bench: Bench) -> None:
    def interrupt(progress: BuildProgress) -> None:
        if bench.builds:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.ensure("silent", on_progress=interrupt)
    assert not _alive(bench.builds[0]["pid"])
    assert bench.files == {".lock"}


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has started with &
sys.path[:] = {paths!r}
from posesdk_runtimes.engines.engine import EngineOptions, ensure_engine
from posesdk_runtimes.engines.key import Machine
options = EngineOptions(cache={cache!r}, machine=Machine("10.3.0"), free=(8000, 8000), command={command!r})
print(ensure_engine({graph!r}, options=options).reason)
"""


def _start(bench: Bench, mode: str) -> "subprocess.Popen[str]":
    program = PROGRAM.format(
        paths=[entry for entry in sys.path if entry],
        cache=str(bench.cache),
        graph=str(bench.graph),
        command=[sys.executable, bench.script, mode, str(bench.calls)],
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    bench.programs.append(started)
    return started


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_build_one_engine(bench: Bench) -> None:
    both = [_start(bench, "slow") for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(bench.builds) == 1
    assert sorted(bool(out.strip()) for out, _ in outputs) == [False, True]


def test_ctrl_c_ends_program_and_build(bench: Bench) -> None:
    program = _start(bench, "silent")
    _until(lambda: bench.builds)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in err
    assert not _alive(bench.builds[0]["pid"])
    assert bench.files == {".lock"}


def test_the_lock_and_leavings_of_a_killed_program_are_in_nobodys_way(bench: Bench) -> None:
    program = _start(bench, "silent")
    _until(lambda: bench.builds)
    program.kill()
    program.communicate(timeout=PATIENCE)
    left = bench.builds[0]["pid"]
    assert ".lock" in bench.files
    assert len(bench.files) > 1  # the file that was being written
    assert bench.ensure().path.is_file()
    assert bench.files == {".engine", ".json", ".lock"}
    os.kill(left, signal.SIGKILL)  # this builder, unlike the real one, sends no signs of life that would end it


def test_who_waits_is_told_for_whom(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[BuildProgress] = []
    cache, key = EngineCache(bench.cache), make_key(bench.graph, "f32", None, ORIN)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with cache.building(time.monotonic() + PATIENCE, lambda holder: None):
            held.set()
            let_go.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(PATIENCE)

    def listen(progress: BuildProgress) -> None:
        heard.append(progress)
        let_go.set()

    engine = bench.ensure(on_progress=listen)
    thread.join()
    assert heard[0].phase == f"waiting for process {os.getpid()}"
    assert f"process {os.getpid()} is building" in caplog.text
    assert engine.key == key


def test_waiting_has_a_limit_too(bench: Bench) -> None:
    with (
        EngineCache(bench.cache).building(time.monotonic() + 10, lambda holder: None),
        pytest.raises(EngineBuildError, match=f"process {os.getpid()} has been building"),
    ):
        bench.ensure(timeout=0.3)


def test_pruning_keeps_the_engine_in_use_and_those_of_other_graphs_and_gpus(bench: Bench) -> None:
    bench.ensure(label="nano/trunk", machine=replace(ORIN, tensorrt="8.6.2"))
    thor = bench.ensure(label="nano/trunk", machine=replace(ORIN, gpu="Thor"))
    kept = bench.ensure(label="nano/trunk")
    bench.graph.write_bytes(b"another model")
    other = bench.ensure(label="small/trunk")
    removed = EngineCache(bench.cache).prune(kept.key, kept.label)
    assert [entry.key["tensorrt"] for entry in removed] == ["8.6.2"]
    assert {path.stem for path in bench.cache.glob("*.engine")} == {engine.path.stem for engine in (kept, other, thor)}
    assert {path.stem for path in bench.cache.glob("*.json")} == {engine.path.stem for engine in (kept, other, thor)}


def test_a_long_build_writes_to_the_log_unless_someone_listens(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posesdk_runtimes.engines.engine._NEWS", 0.2)
    bench.ensure("slow")
    assert re.search(r"building, 25%, \d s so far", caplog.text)
    caplog.clear()
    bench.ensure("slow", machine=replace(ORIN, gpu="Thor"), on_progress=lambda progress: None)
    assert "so far" not in caplog.text


def test_the_builder_sees_the_wanted_gpu_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ensure_engine(bench.graph, device="cuda:1", options=bench.options())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    ensure_engine(bench.graph, device="cuda:1", precision="f16", options=bench.options())
    assert [call["gpu"] for call in bench.builds] == ["1", "5"]


def test_a_graph_that_is_not_there_is_named(bench: Bench) -> None:
    bench.graph.unlink()
    with pytest.raises(ArtifactError, match=r"trunk\.onnx"):
        bench.ensure()


def test_a_cache_that_cannot_be_written_is_named(bench: Bench) -> None:
    bench.cache.write_text("a file where a folder should be")
    with pytest.raises(EngineBuildError, match="POSESDK_CACHE") as caught:
        bench.ensure()
    assert caught.value.reason == "write"


def test_no_memory_for_the_process_itself_comes_with_the_advice_for_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("posesdk_runtimes.engines.process.subprocess.Popen", refuse)
    with pytest.raises(EngineBuildError, match=r"Cannot allocate memory; close other programs, add swap") as caught:
        bench.ensure()
    assert caught.value.reason == "memory"
    assert bench.files == {".lock"}


def test_memory_that_cannot_do_is_refused_before_the_build(bench: Bench) -> None:
    with pytest.raises(EngineBuildError, match=r"200 MiB of memory are free.*at least 256.*add swap"):
        bench.ensure(free=(4000, 200))
    assert not bench.builds


def test_memory_that_may_not_do_is_warned_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    check_memory(bench.graph, (8000, 8000))
    assert not caplog.records
    check_memory(bench.graph, (700, 8000))
    assert "768 MiB of memory, and 700 MiB are free" in caplog.text


def test_scratch_memory_is_what_is_left_beside_the_build(bench: Bench) -> None:
    assert workspace_within(1024, bench.graph, (8000, 9000)) == 1024
    assert workspace_within(1024, bench.graph, (1268, 9000)) == 500
    assert workspace_within(1024, bench.graph, (300, 9000)) == 64
    assert workspace_within(16, bench.graph, (300, 9000)) == 16


@pytest.mark.parametrize(
    ("cgroup", "expected"), [(None, 3072), ("max", 3072), (str(1 << 30), 924)], ids=["none", "unlimited", "container"]
)
def test_free_memory_counts_swap_and_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str | None, expected: int
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2097152 kB\nSwapFree:  1048576 kB\n")
    if cgroup:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(cgroup + "\n")
        (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{100 << 20}\n")

    class Jetson:
        def device(self, index: int) -> object:
            return type("Device", (), {"integrated": True})

    monkeypatch.setattr("posesdk_runtimes.engines.memory.load_cuda", Jetson)
    assert free_memory(0, tmp_path) == (expected, expected)


def test_the_release_of_a_jetson_is_read(tmp_path: Path) -> None:
    line = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    (tmp_path / "nv_tegra_release").write_text(line)
    assert l4t_release(tmp_path / "nv_tegra_release") == "36.4.3"
    assert l4t_release(tmp_path / "none") == ""


def test_the_cache_lies_where_the_bundles_of_the_user_lie() -> None:
    assert default_cache_folder({"POSESDK_CACHE": "/a"}) == Path("/a/engines")
    assert default_cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/posesdk/engines")
    assert default_cache_folder({}) == Path.home() / ".cache/posesdk/engines"
