"""LOGO-CAP with HRNet-W32 at 512 x 512 on a CPU: the published arithmetic in plain PyTorch, and ours on OpenVINO.

    python benchmarks/w32_speed.py [--cache build/w32] [--rounds 8] [--threads N] [--bundle FILE] [--data COCO.json]

All take turns at one picture. The network runs in full on both sides, and its maps are then replaced by the same maps
of exactly so many people. Weights are random, since there are no trained ones of this size; what rounding costs is
measured on trained smaller models instead. Converting W32 takes minutes, once for a cache.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from posesdk.labelled_pictures import read_pictures
from posesdk.manifest import Precision
from posesdk.pipeline import Pipeline
from posesdk.spec import ModelSpec
from posesdk.terminal import show_line, show_text
from posesdk_training.checkpoint import load_model
from posesdk_training.models.build import logocap_w32_spec
from posesdk_training.models.logocap import LogoCap
from posesdk_training.report.grids import Table
from posesdk_training.report.markdown import markdown_table
from published.estimator import PublishedEstimator
from trunk_time.conditions import conditions
from w32.accuracy import accuracy_table, open_precision
from w32.converted import convert_once, open_converted
from w32.maps import FixedNetwork, FixedTrunk, planted_maps
from w32.tables import ratio_table, share_table, time_table
from w32.turns import take_turns
from w32.weights import random_model_once, random_pictures

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "training/weights/logocap-small.safetensors"
NET, PICTURE = (512, 512), (640, 640)
"""Height and width."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
FEW, MANY = 5, 10
"""People."""
PLAIN, FLIPPED = "published", "published with flip test"
FP32, BF16, INT8, MIXED = "fp32", "bf16", "int8", "int8 with float adapt"
RATIOS = ((PLAIN, FP32, 1.2), (PLAIN, BF16, 2.2), (PLAIN, INT8, 4.0), (FLIPPED, INT8, 8.0))
SHARES = ((FP32, 25.0), (MIXED, 25.0), (INT8, 10.0))

Image = NDArray[np.uint8]
Contenders = Mapping[str, PublishedEstimator | Pipeline]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build/w32", help="empty it when the converters change")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bundle", type=Path, default=ROOT / "build/targets.posebundle", help="trained, cpu variants")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/coco_eval/keypoints.json")
    parser.add_argument("--limit", type=int, default=300, help="pictures of --data")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    progress("random weights")
    model = random_model_once(w32_spec(), options.cache / "w32.safetensors")
    pipelines = open_pipelines(model, options.cache / "w32", options.threads)
    show_line(
        f"{conditions()} torch {torch.__version__}, OpenCV {cv2.__version__}; {options.threads} threads on both sides; "
        f"random weights, random picture {PICTURE[0]}x{PICTURE[1]}, input {NET[0]}x{NET[1]}; "
        f"{options.rounds} turns each, ratios of the least times."
    )
    for people in (FEW, MANY):
        show_speed(model, pipelines, people, options.rounds)
    show_accuracy(options)


def w32_spec() -> ModelSpec:
    """As published, without the flip test."""
    spec = logocap_w32_spec()
    return spec.model_copy(update={"decode": spec.decode.model_copy(update={"flip_test": False})})


def open_pipelines(model: LogoCap, folder: Path, threads: int) -> dict[str, Pipeline]:
    """What OpenVINO runs, by name."""
    made = convert_once(model, folder, PRECISIONS, size=NET, step=progress)
    fp32, bf16, int8 = (made[precision] for precision in PRECISIONS)
    pairs = {FP32: (fp32, fp32), BF16: (bf16, bf16), INT8: (int8, int8), MIXED: (int8, fp32)}
    return {name: open_converted(model.spec, folder, *pair, threads=threads) for name, pair in pairs.items()}


def show_speed(model: LogoCap, pipelines: Mapping[str, Pipeline], people: int, rounds: int) -> None:
    """The tables of one number of people."""
    image = random_pictures(1, PICTURE)[0][0]
    maps = planted_maps(pipelines[FP32], image, people)
    network = FixedNetwork(model, maps)
    published = PublishedEstimator(model, flip=False, network=network)
    contenders: Contenders = {
        PLAIN: published,
        FLIPPED: PublishedEstimator(model, flip=True, network=network),
        **{name: replace(one, trunk=FixedTrunk(one.trunk, maps)) for name, one in pipelines.items()},
    }
    runs = {name: lambda one=one: one.run(image).timing for name, one in contenders.items()}
    laps = take_turns(runs, rounds, progress)
    show_table(f"{people} people", time_table(laps))
    if people == FEW:
        show_table("", ratio_table(laps, RATIOS))
    if people == MANY:
        show_table("", share_table(laps, FP32, SHARES))
    show_table("", shift_table(contenders, image))


def shift_table(contenders: Contenders, image: Image) -> Table:
    """How far the keypoints of all lie from the published ones on the same maps, so behind the trunk."""
    wanted = contenders[PLAIN].run(image).keypoints
    rows = []
    for name, one in contenders.items():
        found = one.run(image).keypoints
        shifts = np.linalg.norm(found - wanted, axis=2) if found.shape == wanted.shape else np.array([np.inf])
        rows.append((name, str(len(found)), f"{np.median(shifts):.2g}", f"{shifts.max():.2g}"))
    return Table(("same maps, keypoints against the published ones", "people", "median px", "largest px"), tuple(rows))


def show_accuracy(options: argparse.Namespace) -> None:
    """What rounding costs models that are trained."""
    if not options.bundle.is_file() or not options.data.is_file():
        show_line(f"\nPrecision of trained models not measured: {options.bundle} or {options.data} is not there.")
        return
    nano = {one: open_precision(options.bundle, one, flip=False, threads=options.threads) for one in PRECISIONS}
    flipped = open_precision(options.bundle, "fp32", flip=True, threads=options.threads)
    small = load_model(SMALL).eval()
    assert isinstance(small, LogoCap)
    folder, name = options.cache / "small", flipped.spec.name
    made = convert_once(small, folder, ("fp32", "bf16"), step=progress)
    fp32, bf16 = (open_converted(small.spec, folder, one, one, threads=options.threads) for one in made.values())
    pairs = {
        (name, "fp32 with flip test", "int8 without"): (flipped, nano["int8"]),
        (name, "fp32", "int8"): (nano["fp32"], nano["int8"]),
        (name, "fp32", "bf16"): (nano["fp32"], nano["bf16"]),
        (small.spec.name, "fp32", "bf16"): (fp32, bf16),
    }
    pictures = read_pictures(options.data, small.spec.skeleton, limit=options.limit)
    table = accuracy_table(pairs, pictures, progress)
    show_table(f"Trained models on {len(pictures)} labelled pictures", table)
    show_line("There are no trained W32 weights to measure an AP with; these models stand for what rounding costs.")


def show_table(title: str, table: Table) -> None:
    """A Markdown table, below a heading if there is one."""
    heading = f"\n## {title}\n" if title else ""
    show_text(f"{heading}\n{markdown_table(table)}\n")


def progress(text: str) -> None:
    """What is being done, on standard error."""
    show_line(text, err=True)


if __name__ == "__main__":
    main()
