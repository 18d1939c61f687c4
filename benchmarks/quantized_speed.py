"""How much faster the int8 graphs are than the float32 ones, measured in turns in one run; print a table.

    python benchmarks/quantized_speed.py [nano small w32] [--target cpu,onnx] [--threads 1] [--fixed] [--weights FILE]

Weights are random unless given, and ranges those of random pictures: speed depends on neither. Times are the least
processor time of a call in ms, divided by the threads; other programs on the machine change them, the ratios hardly.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.manifest import Variant
from posesdk.spec import InputSpec, ModelSpec
from posesdk.terminal import show_line
from posesdk_converters.calibration import Feeds
from posesdk_converters.portable import export_portable
from posesdk_converters.target import Conversion, find_target
from posesdk_runtimes.base import Runtime, Tensor
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_checkpoint, load_weights
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import LogoCap
from w32.weights import random_contexts, random_pictures

PERSONS = (1, 5, 10)
SIZES = {"nano": (256, 320), "small": (352, 448), "w32": (512, 672)}
"""Input of a 4:3 picture, rounded up to whole multiples."""
ROUNDS = {"nano": 60, "small": 30, "w32": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano", "small"], help=f"of {', '.join(SIZES)}")
    parser.add_argument("--target", default="cpu", help="cpu, onnx, or both with a comma")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fixed", action="store_true", help="with the input size fixed, as --input-size does")
    parser.add_argument("--weights", type=Path, help="a checkpoint of the one model that is named")
    options = parser.parse_args()
    show_line("| model | target | graph | fp32 ms | int8 ms | ratio |")
    show_line("|---|---|---|---|---|---|")
    for name in options.models:
        for target in options.target.split(","):
            with tempfile.TemporaryDirectory() as folder:
                measure(name, target, Path(folder), options)


def measure(name: str, target: str, folder: Path, options: argparse.Namespace) -> None:
    """Prints the lines of one model and target."""
    model = load(name, options.weights)
    size = SIZES[name] if options.fixed else None
    portable = export_portable(model, folder, input_size=size)
    conversion = Conversion(folder, portable, model, feeds=random_feeds(model, size))
    (int8,) = find_target(target).convert(conversion, "int8")
    (fp32,) = find_target(target).convert(conversion, "fp32") or (conversion.portable,)
    place = (folder, int8.runtime[0], options.threads)
    image = {"image": random_pictures(1, SIZES[name])[0]}
    report(f"{name} | {target} | trunk {SIZES[name][0]}x{SIZES[name][1]}", fp32, int8, image, place)
    for count in PERSONS:
        context = {"context": random_contexts(model.spec, count)}
        report(f"{name} | {target} | adapt, {count} persons", fp32, int8, context, place)


def report(title: str, fp32: Variant, int8: Variant, feeds: Mapping[str, Tensor], place: tuple[Path, str, int]) -> None:
    """Runs the graph that takes `feeds` of both variants in turns, and prints their times."""
    folder, runtime, threads = place
    paths = [one.trunk if "image" in feeds else str(one.adapt) for one in (fp32, int8)]
    opened = [open_runtime(folder / path, runtime=runtime, threads=threads) for path in paths]
    rounds = ROUNDS[title.split(" ")[0]]
    slow, fast = (1e3 * seconds / threads for seconds in in_turns(opened, feeds, rounds))
    show_line(f"| {title} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f} |")


def in_turns(runtimes: list[Runtime], feeds: Mapping[str, Tensor], rounds: int) -> list[float]:
    """The least processor time of each, in seconds, of `rounds` calls in turns after one that is not counted."""
    least = [np.inf] * len(runtimes)
    for count in range(rounds + 1):
        for index, runtime in enumerate(runtimes):
            start = time.process_time()
            runtime.run(feeds)
            if count:
                least[index] = min(least[index], time.process_time() - start)
    return least


def load(name: str, weights: Path | None) -> LogoCap:
    """A model of this name, with these weights or random ones."""
    torch.manual_seed(0)
    if weights is None:
        return build_model(spec_of(name)).eval()
    checkpoint = load_checkpoint(weights)
    model = build_model(checkpoint.spec)
    load_weights(model, checkpoint.state_dict, source=str(weights))
    return model.eval()


def spec_of(name: str) -> ModelSpec:
    """The specification of a recipe."""
    if name == "nano":
        return open_bundle(default_bundle_path()).spec
    if name == "small":
        small = Path(__file__).parents[1] / "training/weights/logocap-small.safetensors"
        return load_checkpoint(small).spec
    return ModelSpec(name="w32", input=InputSpec(side=512))


def random_feeds(model: LogoCap, size: tuple[int, int] | None) -> Feeds:
    """Two pictures and the contexts of a few persons: enough to quantize, not to detect anybody."""
    return Feeds(tuple(random_pictures(2, size or (128, 192))), (random_contexts(model.spec, 2),))


if __name__ == "__main__":
    main()
