"""A trunk's time beside the time that the machine's peak allows for its multiply-adds; print a Markdown table.

    python benchmarks/trunk_peak.py [BUNDLE] [--size 256x320] [--threads 1,2] [--seconds 60] [--layers 12]

The peak of a precision is the best rate that the same runtime reaches on chains of wide convolutions; chains and trunks
run in turns, and the least time of each counts, so that the factors hold on a machine with other work too. The
trunk's time is that of the SDK's runtime, copies of the maps included. `--layers` adds each trunk's slowest layers on
one thread. The default is a bundle that holds every variant: `make target-table DATA=FOLDER`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posesdk.bundle import Bundle, open_bundle
from posesdk.manifest import Variant
from posesdk.terminal import show_line
from posesdk_runtimes.base import Runtime
from posesdk_runtimes.registry import open_runtime
from trunk_time.chains import SHAPES, Shape, write_chain
from trunk_time.conditions import conditions
from trunk_time.layers import Layer, multiply_adds, onnxruntime_layers, openvino_layers

BUNDLE = Path(__file__).parents[1] / "build/targets.posebundle"
RUNTIMES = ("openvino", "onnxruntime")
PRECISIONS = ("fp32", "bf16", "int8")
FEWEST_ROUNDS = 5
AT_ONCE = 5
"""Calls of a graph one after the other, so that its weights are where they are in a stream of pictures."""


@dataclass
class Timed:
    """A graph that is run in turns with others, and its least time so far, in seconds."""

    runtime: Runtime
    feeds: dict[str, np.ndarray]
    seconds: float = float("inf")

    def run(self) -> None:
        start = time.perf_counter()
        self.runtime.run(self.feeds)
        self.seconds = min(self.seconds, time.perf_counter() - start)


@dataclass
class Row:
    """A trunk on a runtime in a precision, and the chains that its peak is taken from."""

    runtime: str
    variant: Variant
    path: Path
    multiply_adds: dict[str, int]
    trunk: Timed
    chains: dict[Shape, Timed] = field(default_factory=dict)

    @property
    def peak(self) -> tuple[float, Shape]:
        """The best multiply-adds per second of the shapes, and which one."""
        rates = {shape: shape.multiply_adds / chain.seconds for shape, chain in self.chains.items()}
        best = max(rates, key=lambda shape: rates[shape])
        return rates[best], best

    @property
    def factor(self) -> float:
        """The time measured, over what the peak allows."""
        return self.trunk.seconds * self.peak[0] / sum(self.multiply_adds.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--size", default="256x320", help="rows x columns of the image")
    parser.add_argument("--threads", default=",".join(dict.fromkeys(("1", str(len(os.sched_getaffinity(0)))))))
    parser.add_argument("--seconds", type=float, default=60, help="for each number of threads")
    parser.add_argument("--layers", type=int, default=0, metavar="N", help="also the N slowest layers of each trunk")
    options = parser.parse_args()
    rows, columns = map(int, options.size.split("x"))
    bundle = open_bundle(options.bundle)
    show_line(f"{bundle.manifest.id} of {options.bundle.name}, one image of {rows}x{columns}. {conditions()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        for threads in map(int, options.threads.split(",")):
            table = open_rows(bundle, (rows, columns), threads, Path(scratch))
            run_in_turns([one for row in table for one in (row.trunk, *row.chains.values())], options.seconds)
            show_rows(table, threads)
            if options.layers and threads == 1:
                for row in table:
                    show_layers(row, layers_of(row, Path(scratch)), options.layers)


def open_rows(bundle: Bundle, size: tuple[int, int], threads: int, scratch: Path) -> list[Row]:
    """Everything that is to be measured, opened."""
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    rows = []
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            variant = find_variant(bundle, runtime, precision, size)
            if variant is None:
                continue
            path = bundle.local_path(variant.trunk)
            opened = open_runtime(path, runtime=runtime, precision=variant.runtime_precision, threads=threads)
            row = Row(runtime, variant, path, multiply_adds(path, size), Timed(opened, {"image": image}))
            for shape in SHAPES:
                row.chains[shape] = open_chain(row, shape, threads, scratch)
            rows.append(row)
    return rows


def find_variant(bundle: Bundle, runtime: str, precision: str, size: tuple[int, int]) -> Variant | None:
    """The first variant of a bundle for this runtime and precision on a CPU that takes images of this size."""
    for variant in bundle.manifest.variants:
        suits = runtime in variant.runtime and "cpu" in variant.devices and variant.precision == precision
        if suits and variant.graphs == "split" and variant.input_size in (None, size):
            return variant
    return None


def open_chain(row: Row, shape: Shape, threads: int, scratch: Path) -> Timed:
    """A chain of convolutions, opened as the trunk is."""
    precision = row.variant.precision
    path = scratch / f"{'int8' if precision == 'int8' else 'float'}-{SHAPES.index(shape)}.onnx"
    if not path.exists():
        write_chain(path, shape, int8=precision == "int8")
    value = np.random.default_rng(0).random((1, shape.widths[0], shape.rows, shape.columns), dtype=np.float32)
    opened = open_runtime(path, runtime=row.runtime, precision=row.variant.runtime_precision, threads=threads)
    return Timed(opened, {"input": value})


def run_in_turns(graphs: Sequence[Timed], seconds: float) -> None:
    """Runs each graph a few times a round, for that long."""
    end, rounds = time.monotonic() + seconds, 0
    while rounds < FEWEST_ROUNDS or time.monotonic() < end:
        for graph in graphs:
            for _ in range(AT_ONCE):
                graph.run()
        rounds += 1


def show_rows(rows: Sequence[Row], threads: int) -> None:
    """Prints the table of one number of threads."""
    show_line(f"Threads: {threads}\n")
    show_line(
        "| runtime | precision | peak G/s | reached on | M multiply-adds | at the peak ms | ms | factor | vs fp32 |"
    )
    show_line("|---|---|---|---|---|---|---|---|---|")
    float_times = {row.runtime: row.trunk.seconds for row in rows if row.variant.precision == "fp32"}
    for row in rows:
        rate, shape = row.peak
        seconds, total = row.trunk.seconds, sum(row.multiply_adds.values())
        faster = float_times[row.runtime] / seconds if row.runtime in float_times else float("nan")
        show_line(
            f"| {row.runtime} | {row.variant.precision} | {rate / 1e9:.0f} | {shape} | {total / 1e6:.0f} "
            f"| {1e3 * total / rate:.2f} | {1e3 * seconds:.2f} | {row.factor:.2f} | {faster:.2f} |"
        )
    show_line("")


def layers_of(row: Row, scratch: Path) -> list[Layer]:
    """The layers of a row's trunk on one thread, the slowest first."""
    image = row.trunk.feeds["image"]
    if row.runtime == "openvino":
        precision = row.variant.runtime_precision
        return openvino_layers(row.path, image, row.multiply_adds, precision=precision, threads=1)
    return onnxruntime_layers(row.path, image, row.multiply_adds, threads=1, scratch=scratch)


def show_layers(row: Row, layers: Sequence[Layer], count: int) -> None:
    """Prints the slowest layers, and what all others take together."""
    rate = row.peak[0]
    show_line(f"Layers: {row.runtime}, {row.variant.precision}, 1 thread, times of the runtime's profiler\n")
    show_line("| layer | kernel | M multiply-adds | µs | factor |")
    show_line("|---|---|---|---|---|")
    for layer in layers[:count]:
        factor = f"{layer.seconds * rate / layer.multiply_adds:.2f}" if layer.multiply_adds else ""
        amount = f"{layer.multiply_adds / 1e6:.1f}" if layer.multiply_adds else ""
        show_line(f"| {layer.name} | {layer.kernel} | {amount} | {1e6 * layer.seconds:.0f} | {factor} |")
    rest, idle = sum(one.seconds for one in layers[count:]), sum(one.seconds for one in layers if not one.multiply_adds)
    show_line(f"| {len(layers) - count} others | | | {1e6 * rest:.0f} | |")
    show_line(f"| all that multiply nothing | | | {1e6 * idle:.0f} | |\n")


if __name__ == "__main__":
    main()
