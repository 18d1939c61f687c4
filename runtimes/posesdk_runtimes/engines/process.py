"""The process that builds an engine, seen from the program that asked for it: progress, time limit, ways to end."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from posesdk_runtimes.engines.job import Job
from posesdk_runtimes.errors import EngineBuildError, MissingDependencyError
from posesdk_runtimes.tensorrt.runtime import lacks_memory

__all__ = ["MEMORY_HINT", "BuildProgress", "OnProgress", "build_command", "run_build"]

MEMORY_HINT = (
    "close other programs, add swap (`sudo fallocate -l 4G /swapfile`, `chmod 600`, `mkswap`, `swapon`), convert with "
    "a smaller --input-size, or give a smaller --workspace to `posesdk prepare`"
)
_TICK = 0.5
"""Seconds between two calls of `on_progress` when nothing new is heard."""
_LEAVING = 10.0
"""Seconds that a process may take to end after it has closed its output."""
_OUT_OF_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit codes of a process that the kernel ended, seen directly and through a shell."""
_HINTS = {
    "memory": MEMORY_HINT,
    "parse": "upgrade TensorRT (JetPack), or use another runtime",
    "precision": "use another variant of the bundle with --precision",
    "shapes": "convert the checkpoint again with this version",
    "write": "free space, or set POSESDK_CACHE to another folder",
}


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """State of a build: what is done, which part of it (0 to 1; None where that cannot be told), seconds so far."""

    phase: str
    part: float | None
    seconds: float


OnProgress = Callable[[BuildProgress], None]


def build_command() -> tuple[str, ...]:
    """Starts the builder in the interpreter, and with the import paths, of this process."""
    python = sys.executable or shutil.which("python3") or "python3"
    paths = [entry for entry in sys.path if entry]
    return (
        python,
        "-c",
        f"import sys; sys.path[:] = {paths!r}\nfrom posesdk_runtimes.engines.build import main; main()",
    )


def run_build(
    job: Job,
    *,
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    on_progress: OnProgress,
) -> Mapping[str, Any]:
    """Runs one build to its end; {"size", "sha256"} of the file `job.output`.

    The process never outlives this call. Raises EngineBuildError, MissingDependencyError where it has no such library.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as log, _running(command, environment, log) as process:
        _hand_over(process, job)
        done: Mapping[str, Any] | None = None
        phase, part = "starting", None
        for event in _events(process, start + timeout):
            match event:
                case {"event": "progress", "phase": phase, "part": part}:
                    pass
                case {"event": "done"}:
                    done, phase, part = event, "built", 1.0
                case {"event": "error", "reason": reason, "message": message}:
                    raise _refused(job, reason, message)
            on_progress(BuildProgress(phase, part, time.monotonic() - start))
            if done is not None:
                break
        if done is None:
            raise _ended(job, _wait(process), log) if time.monotonic() < start + timeout else _overdue(job, timeout)
        return done  # TensorRT may crash while it takes itself down: the file's sha256 says whether it is whole


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
) -> Iterator["subprocess.Popen[bytes]"]:
    # In a session of its own: Ctrl-C reaches the program alone, which then ends the build.
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # the group: what the process has started goes with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _hand_over(process: "subprocess.Popen[bytes]", job: Job) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(job.to_dict()).encode())
        process.stdin.close()
    except BrokenPipeError:
        return  # it has ended; its exit code says why


def _events(process: "subprocess.Popen[bytes]", deadline: float) -> Iterator[Mapping[str, Any]]:
    """What the process says, and {} every now and then, until it closes its output, ends, or the time is over."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=min(_TICK, left))
        except queue.Empty:
            if process.poll() is not None and lines.empty():
                return  # ended, though a process that it started may hold its output open
            yield {}
            continue
        if line is None:
            return
        yield _parsed(line)


def _read(pipe: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    """In a thread, which alone may close the pipe: closing waits for a read that is under way."""
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(None)


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _wait(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(_LEAVING)
    except subprocess.TimeoutExpired:
        return None


def _refused(job: Job, reason: str, message: str) -> EngineBuildError | MissingDependencyError:
    if reason == "missing":
        return MissingDependencyError(f"cannot build the engine of {job.onnx}: {message}")
    hint = _HINTS.get(reason, "use another runtime, and report this model")
    return EngineBuildError(f"cannot build the engine of {job.onnx}: {message}; {hint}", reason)


def _overdue(job: Job, timeout: float) -> EngineBuildError:
    return EngineBuildError(
        f"building the engine of {job.onnx} took more than {timeout:.0f} s and was stopped; give a larger --timeout to "
        f"`posesdk prepare`. TensorRT may also hang for lack of memory: {MEMORY_HINT}",
        "timeout",
    )


def _ended(job: Job, code: int | None, log: IO[bytes]) -> EngineBuildError:
    what = f"building the engine of {job.onnx}"
    if code in _OUT_OF_MEMORY:
        return EngineBuildError(f"{what}: the system ended it, most likely for lack of memory; {MEMORY_HINT}", "memory")
    log.seek(0)
    hint, reason = "use another runtime, and report this model", "crash"
    lines = log.read().decode("utf-8", "replace").strip().splitlines() or ["no message"]
    if code is None:
        how = "gave no engine and did not end"
    elif code < 0:
        how = f"crashed with signal {-code} ({signal.strsignal(-code)})"
    else:
        how = f"ended with code {code}"
    if lacks_memory(lines[-1]):
        hint, reason = MEMORY_HINT, "memory"
    return EngineBuildError(f"{what} {how}: {lines[-1]}; {hint}", reason)
