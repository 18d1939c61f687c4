"""Start-up and memory: from the start of a process to poses, for each runtime that is installed; print tables.

    python benchmarks/start_up.py [--rounds 7] [--targets build/targets.posebundle] [--picture FILE] [--json FILE]

Every figure is of a fresh process, and all kinds of processes take turns. Times are the least and, in brackets, the
median of the rounds. "python" is the start of the interpreter itself; the next columns are added up from the first
import on, without the picture, which is in memory by then.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import start_steps
from processor import processor
from start_tables import Results, print_steps, print_targets, print_wholes

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT.parent / "shared/data/videos/group_exercise_720p25.mp4"
LIBRARIES = ("numpy", "opencv-python-headless", "pydantic", "typer", "onnxruntime", "openvino", "ai-edge-litert")
MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tflite": "ai_edge_litert"}
"""What each runtime is imported as."""
KINDS = (("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "int8"), ("tflite", "fp32"), ("tflite", "int8"))
"""Runtimes and precisions of a bundle of all targets."""


@dataclass(frozen=True)
class Case:
    """Settings of a Detector; `title` is what the tables say."""

    title: str
    runtime: str
    settings: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--targets", type=Path, default=ROOT / "build/targets.posebundle", help="a bundle of them all")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="a picture, or a video to take one from")
    parser.add_argument("--json", type=Path, help="also write every single figure there")
    options = parser.parse_args()
    found = [case for case in cases(options.targets) if importlib.util.find_spec(MODULES[case.runtime])]
    print(conditions(options), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # In another process: the highest memory of a process that is started here begins with that of this one.
        line = [sys.executable, start_steps.__file__, "save", str(options.picture), folder]
        subprocess.run(line, check=True)
        runs, wholes = measure(found, Path(folder), options.rounds)
    print_steps(runs)
    print_wholes(wholes)
    print_targets(runs, wholes)
    if options.json:
        options.json.write_text(json.dumps({"steps": runs, "processes": wholes}, indent=1) + "\n")


def cases(targets: Path) -> list[Case]:
    """The default model as it is and on other runtimes, and the variants of a bundle for all targets."""
    found = [Case("default", "onnxruntime", {}), Case("default, openvino", "openvino", {"runtime": "openvino"})]
    if targets.is_file():
        for runtime, precision in KINDS:
            settings = {"model": str(targets), "runtime": runtime, "precision": precision}
            found.append(Case(f"targets, {runtime} {precision}", runtime, settings))
    return found


def commands(folder: Path) -> dict[str, list[str]]:
    """Whole processes by their titles."""
    python, posesdk = sys.executable, str(Path(sys.executable).with_name("posesdk"))
    photo, clip = str(folder / "photo.jpg"), str(folder / "clip.avi")
    poses = f"import numpy; from posesdk import Detector; Detector()(numpy.load({str(folder / 'picture.npy')!r}))"
    found = {
        "python -c pass": [python, "-c", "pass"],
        "python -c 'import posesdk'": [python, "-c", "import posesdk"],
        "python -c 'import numpy, cv2'": [python, "-c", "import numpy, cv2"],
        "python -c 'from posesdk import Detector; Detector()(image)'": [python, "-c", poses],
        "posesdk --version": [posesdk, "--version"],
        "posesdk detect --help": [posesdk, "detect", "--help"],
        "posesdk detect photo.jpg": [posesdk, "detect", photo],
        f"posesdk detect {start_steps.FRAMES}-frames.avi": [posesdk, "detect", clip],
    }
    if importlib.util.find_spec("openvino"):
        for title in tuple(found)[-2:]:
            found[f"{title} --runtime openvino"] = [*found[title], "--runtime", "openvino"]
    return found


def measure(found: list[Case], folder: Path, rounds: int) -> tuple[Results, Results]:
    """What `start_steps` says of every case, and the whole processes, in turns; one round more that does not count."""
    runs: Results = {case.title: [] for case in found}
    lines = commands(folder)
    wholes: Results = {title: [] for title in lines}
    for count in range(rounds + 1):
        steps = {case.title: run_steps(case, folder / "picture.npy") for case in found}
        ended = {title: run_whole(line) for title, line in lines.items()}
        if count:
            for kept, fresh in ((runs, steps), (wholes, ended)):
                for title, result in fresh.items():
                    kept[title].append(result)
    return runs, wholes


def run_steps(case: Case, picture: Path) -> dict[str, Any]:
    """One fresh process of `start_steps`."""
    settings = json.dumps(case.settings)
    line = [sys.executable, start_steps.__file__, str(time.monotonic()), str(picture), settings]
    result: dict[str, Any] = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)
    return result


def run_whole(line: list[str]) -> dict[str, Any]:
    """Seconds, those of the processors, and the highest MiB of a process from its start to its end."""
    start = time.perf_counter()
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with code {process.returncode}")
    return {"seconds": seconds, "processor": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}


def conditions(options: argparse.Namespace) -> str:
    """The machine, the versions and the work, in a line."""
    versions = ", ".join(f"{library} {number}" for library in LIBRARIES if (number := version_of(library)))
    return (
        f"{len(os.sched_getaffinity(0))} cores of {processor()}, Python "
        f"{platform.python_version()}, {versions}; load average before {os.getloadavg()[0]:.2f}; {options.rounds} "
        f"rounds, {start_steps.FRAMES} frames each, of {options.picture.name}; threads as the runtimes choose"
    )


def version_of(library: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
