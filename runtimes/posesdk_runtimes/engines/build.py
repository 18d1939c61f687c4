"""The process that builds one TensorRT engine: `python -m posesdk_runtimes.engines.build < job.json`.

It is a process of its own so that running out of memory, a crash of the vendor's library or Ctrl-C leave the program
that asked for the engine alive. The job on standard input::

    {"onnx": path, "output": path, "precision": "f32" | "f16", "recipe": {...} | null, "workspace_mib": 1024,
     "module": "tensorrt"}

Standard output carries one JSON object a line: {"event": "progress", "phase": .., "part": 0..1 | null},
{"event": "alive"} every second, and at the end {"event": "done", "size": .., "sha256": ..} or
{"event": "error", "reason": .., "message": ..} with a reason of EngineBuildError, or "missing".
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posesdk_runtimes.engines.job import BuildFault, Job, Messages
from posesdk_runtimes.engines.network import Network, Vendor, make_profile, parse_network
from posesdk_runtimes.errors import MissingDependencyError
from posesdk_runtimes.tensorrt.runtime import load_tensorrt

__all__ = ["Channel", "Phases", "build", "configure", "main"]

BEAT = 1.0
"""Seconds between two signs of life."""
MIB = 1 << 20
_FINEST = 0.001
"""Smallest part of a build that is reported."""


class Channel:
    """Standard output as it was at the start: the vendor's library prints to it, too, and is sent to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, event: str, **fields: Any) -> None:
        """One line. Ends the process where nobody reads it any more."""
        try:
            with self._lock:
                self._file.write(json.dumps({"event": event, **fields}) + "\n")
                self._file.flush()
        except BrokenPipeError:
            os._exit(1)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Sends signs of life meanwhile."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                self.send("alive")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Phases:
    """The nested phases of a build as one number: the part of the outermost one that is done."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int]] = {}
        self._steps: dict[str, int] = {}
        self._reached = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins inside another one."""
        self._open[name] = (parent, max(steps, 1))
        self._steps[name] = 0

    def step(self, name: str, index: int) -> None:
        """Step `index`, counted from 0, is done."""
        self._steps[name] = index + 1

    def finish(self, name: str) -> None:
        """A phase is over, with or without its steps."""
        self._open.pop(name, None)

    @property
    def part(self) -> float:
        """0 to 1; never goes back."""
        roots = [name for name, (parent, _) in self._open.items() if parent not in self._open]
        self._reached = max([self._reached, *(self._part(name) for name in roots[:1])])
        return self._reached

    def _part(self, name: str) -> float:
        children = [self._part(child) for child, (parent, _) in self._open.items() if parent == name]
        return min((self._steps[name] + max(children, default=0.0)) / self._open[name][1], 1.0)


def build(job: Job, channel: Channel) -> None:
    """Builds and writes the engine, and tells the channel how it went. Raises BuildFault."""
    try:
        trt = load_tensorrt(job.module)
    except MissingDependencyError as error:
        raise BuildFault("missing", str(error)) from error
    messages = Messages()
    logger = messages.logger(trt)
    vendor = Vendor(trt, logger, trt.Builder(logger), messages)
    channel.send("progress", phase="reading the graph", part=None)
    network = parse_network(vendor, job)
    config = configure(vendor, job, network)
    monitor = _monitor(trt, channel)
    if monitor is not None:
        config.progress_monitor = monitor
    channel.send("progress", phase="building", part=None)
    plan = vendor.builder.build_serialized_network(network.definition, config)
    if plan is None:
        raise messages.fault("build", f"TensorRT {trt.__version__} built no engine")
    _write(memoryview(plan), Path(job.output), channel)


def main() -> None:
    """Entry point of the process."""
    channel = Channel()
    job = Job.from_dict(json.load(sys.stdin))
    _be_killed_first()
    with channel.beating():
        try:
            build(job, channel)
        except BuildFault as fault:
            channel.send("error", reason=fault.reason, message=str(fault))
            sys.exit(1)


def configure(vendor: Vendor, job: Job, network: Network) -> Any:
    """The builder's configuration. Raises BuildFault for shapes that do not fit."""
    config = vendor.builder.create_builder_config()
    config.set_memory_pool_limit(vendor.trt.MemoryPoolType.WORKSPACE, job.workspace_mib * MIB)
    config.clear_flag(vendor.trt.BuilderFlag.TF32)  # it would round float32 layers to 10 bits
    for flag in network.flags:
        config.set_flag(flag)
    if not vendor.has_strong:  # TensorRT 8.6: without it, only one caller at a time could use the engine
        config.set_preview_feature(vendor.trt.PreviewFeature.PROFILE_SHARING_0806, True)
    profile = make_profile(vendor, network.definition, job.recipe)
    if profile is not None and config.add_optimization_profile(profile) < 0:
        raise vendor.messages.fault("shapes", f"TensorRT {vendor.trt.__version__} refuses the recipe's shapes")
    return config


def _monitor(trt: Any, channel: Channel) -> Any:
    """The vendor's progress monitor (TensorRT 10 and newer), else None."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    phases, lock, sent = Phases(), threading.Lock(), [-1.0]

    def report(name: str) -> None:
        part = phases.part
        if part - sent[0] >= _FINEST:
            sent[0] = part
            channel.send("progress", phase=name, part=round(part, 4))

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                phases.step(phase_name, step)
                report(phase_name)
            return True  # False would give the build up

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                phases.finish(phase_name)

    return Monitor()


def _write(data: memoryview, output: Path, channel: Channel) -> None:
    size = data.nbytes
    try:
        with output.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"the engine of {size / MIB:.1f} MiB cannot be written to {output}: {error.strerror}"
        raise BuildFault("write", what) from error
    channel.send("done", size=size, sha256=hashlib.sha256(data).hexdigest())


def _be_killed_first() -> None:
    """Where memory runs out, Linux shall end this process and not the user's."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return  # no Linux, or a sandbox


if __name__ == "__main__":
    main()
