"""Time the TFLite graphs of a bundle, every precision in turn in one run; print a table.

    posesdk-convert default --target mobile --precision fp32,fp16,int8 --calibration COCO.json -o mobile.posebundle
    python benchmarks/mobile_speed.py mobile.posebundle [--threads 1 2] [--rounds 60] [--persons 1 5]

Milliseconds are processor time, smallest and median: repeatable also where the machine does other work. Wall time is
the smallest.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from posesdk.bundle import Bundle, open_bundle
from posesdk.manifest import Variant
from posesdk.terminal import show_line
from posesdk_runtimes.base import Runtime, Tensor
from posesdk_runtimes.registry import open_runtime

Times = dict[str, list[tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--persons", type=int, nargs="+", default=[1, 5])
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    variants = [variant for variant in bundle.manifest.variants if "tflite" in variant.runtime]
    if not variants:
        parser.error(f"{options.bundle} has no variant for tflite; convert the model with --target mobile")
    show_line("| graph | threads | variant | CPU ms | median | wall ms | x fp32 |")
    show_line("| --- | --- | --- | --- | --- | --- | --- |")
    for threads in options.threads:
        show("trunk", threads, measure(bundle, variants, "trunk", threads, 1, options.rounds))
        for persons in options.persons if variants[0].adapt else ():
            times = measure(bundle, variants, "adapt", threads, persons, options.rounds)
            show(f"adapt, {persons} people", threads, times)


def measure(bundle: Bundle, variants: list[Variant], graph: str, threads: int, count: int, rounds: int) -> Times:
    paths = {variant.precision: bundle.local_path(getattr(variant, graph)) for variant in variants}
    opened = {name: open_runtime(path, runtime="tflite", threads=threads) for name, path in paths.items()}
    times: Times = {name: [] for name in opened}
    try:
        feeds = {name: example(runtime, count) for name, runtime in opened.items()}
        for _ in range(rounds):
            for name, runtime in opened.items():
                cpu, wall = time.process_time(), time.perf_counter()
                runtime.run(feeds[name])
                times[name].append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    finally:
        for runtime in opened.values():
            runtime.close()
    return times


def example(runtime: Runtime, count: int) -> Mapping[str, Tensor]:
    """Noise: the time does not depend on what is in the picture."""
    rng = np.random.default_rng(0)
    (port,) = runtime.inputs
    shape = [count, *(side or 1 for side in port.shape[1:])]
    values = rng.integers(0, 256, shape) if port.dtype == np.uint8 else rng.random(shape)
    return {port.name: values.astype(port.dtype)}


def show(graph: str, threads: int, times: Times) -> None:
    reference = min(cpu for cpu, _ in next(iter(times.values())))
    for name, pairs in times.items():
        cpu, wall = (np.array(values) for values in zip(*pairs, strict=True))
        show_line(
            f"| {graph} | {threads} | {name} | {cpu.min():.2f} | {np.median(cpu):.2f} | {wall.min():.2f} "
            f"| {reference / cpu.min():.1f} |"
        )


if __name__ == "__main__":
    main()
