"""Seconds and peak memory of importing and converting a published-layout W32 checkpoint for CPUs.

    python benchmarks/convert_w32.py [--short-side 512] [--threads N]

The weights are random, with the statistics of their normalisation taken from random pictures: the checkpoint is as
large as the published one, and finds as many people as it may, so that the comparison has the most to do.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from posesdk.terminal import show_line
from posesdk_training.models.build import logocap_w32_spec
from w32.weights import random_model

PROGRAM = "from posesdk_converters.cli import main; main()"
MIB = 1024
"""KiB, the unit of `ru_maxrss` on Linux."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short-side", type=int, default=512, help="short side of the input, in px")
    parser.add_argument("--threads", type=int, help="threads of the numeric libraries; else their own choice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "w32.pth.tar"
        write_checkpoint(checkpoint)
        show_line(f"checkpoint: {checkpoint.stat().st_size / 2**20:.0f} MiB")
        command = [sys.executable, "-c", PROGRAM, "--from-logocap", str(checkpoint)]
        command += ["--target", "cpu", "--short-side", str(options.short_side), "-o", str(folder / "w32.posebundle")]
        start = time.perf_counter()
        done = subprocess.run(command, check=False, env=environment(options.threads))
        seconds = time.perf_counter() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(done.returncode)
        size = (folder / "w32.posebundle").stat().st_size / 2**20
    show_line(
        f"{seconds:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of a processor, peak {usage.ru_maxrss / MIB**2:.2f} "
        f"GiB; the bundle has {size:.0f} MiB"
    )


def write_checkpoint(path: Path) -> None:
    """A state dict as published, of the W32 model."""
    torch.save(random_model(logocap_w32_spec()).state_dict(), path)


def environment(threads: int | None) -> dict[str, str]:
    """The environment of the command."""
    return {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}


if __name__ == "__main__":
    main()
