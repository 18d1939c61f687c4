"""LOGO-CAP with HRNet-W32 at 512 x 512 on an NVIDIA GPU: the published arithmetic in PyTorch, and ours.

    python benchmarks/cuda_speed.py [--frames 200] [--cache build/w32-cuda] [--compile] [--no-runtimes]

Ours: the fused graph in PyTorch, float16, as one CUDA graph; and what the converters make, on ONNX Runtime and TensorRT
where they can use the GPU. All from a frame in memory to poses in its pixels counts. Weights are random; a fused graph
refines 30 candidates whoever is there. Ends with exit code 3 where there is no GPU.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posesdk.bundle import open_bundle
from posesdk.pipeline import open_pipeline
from posesdk.spec import InputSpec, ModelSpec
from posesdk.terminal import show_line, show_text
from posesdk.variants import select_variant
from posesdk_converters.package import convert
from posesdk_converters.request import Request
from posesdk_runtimes.errors import PoseSDKError
from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.models.build import logocap_w32_spec
from posesdk_training.models.logocap import LogoCap
from posesdk_training.report.grids import Table
from posesdk_training.report.markdown import markdown_table
from posesdk_training.torch_runtime import torch_pipeline
from published.estimator import PublishedEstimator
from trunk_time.conditions import conditions
from w32.frames_through import FramesThrough
from w32.maps import FixedNetwork, planted_maps
from w32.static_graph import CapturedGraph, milliseconds, static_graph
from w32.weights import random_model_once, random_pictures

NO_GPU = 3
PLACES, PLANTED = 30, 5
"""Candidates of the fused graph, and people that the published arithmetic refines."""
NET, PICTURE, PICTURES = (512, 512), (640, 640), 8
WARM_UP = 10
PUBLISHED = ("published figure, TITAN RTX: the model alone, flip test", "-", "-", "20.7")
"""arXiv 2109.03622, Table 3."""
WANTED = 200
"""Frames a second on an H200."""

Image = NDArray[np.uint8]
Row = tuple[str, ...]
Run = Callable[[Image], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path(__file__).resolve().parents[1] / "build/w32-cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile of both networks before the capture")
    parser.add_argument("--no-runtimes", action="store_true", help="PyTorch alone: nothing is converted")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        show_line(f"No CUDA device: torch {torch.__version__} finds no GPU here, so nothing was measured.", err=True)
        raise SystemExit(NO_GPU)
    options.cache.mkdir(parents=True, exist_ok=True)
    checkpoint = options.cache / "w32.safetensors"
    model = random_model_once(w32_spec(), checkpoint)
    frames = [one[0] for one in random_pictures(PICTURES, PICTURE)] * -(-options.frames // PICTURES)
    show_line(
        f"{conditions()} {torch.cuda.get_device_name()}, torch {torch.__version__} with CUDA {torch.version.cuda}; "
        f"random weights, {len(frames)} frames of {PICTURE[0]}x{PICTURE[1]}, input {NET[0]}x{NET[1]}; more than "
        f"{WANTED} frames/s wanted of ours on an H200."
    )
    fused, stages = fused_rows(model, frames, compiled=options.compile)
    rows = [*published_rows(model, frames), *fused]
    if not options.no_runtimes:
        rows += runtime_rows(checkpoint, options.cache / "w32.posebundle", frames)
    header = ("from decoded frames to poses", "ms, median", "ms, 95 % below", "frames/s")
    for table in (Table(header, (*rows, PUBLISHED)), Table(("fused graph without flip test", "ms"), tuple(stages))):
        show_text(f"\n{markdown_table(table)}\n")


def w32_spec() -> ModelSpec:
    """W32 without the flip test, in the frame that fused graphs have, for pictures fitted into 512 x 512."""
    spec = logocap_w32_spec()
    decode = spec.decode.model_copy(update={"flip_test": False, "max_people": PLACES})
    source = InputSpec(resize="fixed", size=NET, multiple=spec.input.multiple)
    return spec.model_copy(update={"frame": "consistent", "decode": decode, "input": source})


def with_flip(model: LogoCap) -> LogoCap:
    """The same weights for a graph with the flip test in it."""
    spec = model.spec
    decode = spec.decode.model_copy(update={"flip_test": True})
    flipped = LogoCap(spec.model_copy(update={"decode": decode}))
    flipped.load_state_dict(model.state_dict())
    return flipped.eval()


def published_rows(model: LogoCap, frames: Sequence[Image]) -> Iterator[Row]:
    """The published arithmetic in eager mode, with and without its flip test."""
    maps = planted_maps(torch_pipeline(model), frames[0], PLANTED)
    network = FixedNetwork(model.cuda(), maps)
    for flip in (True, False):
        estimator = PublishedEstimator(model, flip=flip, network=network)
        yield timed(f"published, PyTorch, {'with' if flip else 'without'} flip test", estimator.run, frames)
    model.cpu()


def fused_rows(model: LogoCap, frames: Sequence[Image], *, compiled: bool) -> tuple[list[Row], list[Row]]:
    """The fused graph one frame after the other and overlapped with the host; where its time goes on the GPU."""
    rows: list[Row] = []
    stages: list[Row] = []
    example = torch.zeros(1, *NET, 3, dtype=torch.uint8)
    for title, one in (("without", model), ("with", with_flip(model))):
        graph = static_graph(one, PLACES, half=True).cuda()
        if compiled:
            graph.trunk.compile()
            graph.adapt.compile()
        whole = CapturedGraph(graph, example)
        name = f"fused, fp16, CUDA graph, {title} flip test"
        through = FramesThrough(whole, one.spec, PICTURE)
        rows.append(timed(name, through.run, frames))
        start = time.perf_counter()
        poses = list(through.stream(frames))
        rate = len(poses) / (time.perf_counter() - start)
        rows.append((f"{name}, host overlapped", "-", "-", f"{rate:.1f}"))
        if one is model:
            context = torch.zeros(PLACES, *adapt_shape(model.spec))
            parts = [CapturedGraph(graph.trunk, example), CapturedGraph(graph.adapt, context), whole]
            trunk, adapt, all_of_it = (milliseconds(part, len(frames)) for part in parts)
            stages += [("trunk", f"{trunk:.2f}"), (f"adapt, {PLACES} candidates", f"{adapt:.2f}")]
            stages += [
                ("decode, sampling, refinement", f"{all_of_it - trunk - adapt:.2f}"),
                ("all", f"{all_of_it:.2f}"),
            ]
    return rows, stages


def adapt_shape(spec: ModelSpec) -> tuple[int, int, int]:
    """Of the local context of one person."""
    return spec.keypoint_count * spec.heads.embedding, spec.adaptation.local_size, spec.adaptation.local_size


def runtime_rows(checkpoint: Path, path: Path, frames: Sequence[Image]) -> Iterator[Row]:
    """Both kinds of graphs that target cuda makes, on every backend that can use the GPU."""
    if not path.is_file():
        request = Request(("cuda:fp16",), input_size=NET, fused=True)
        convert(load_checkpoint(checkpoint), request, path, step=lambda text: show_line(text, err=True))
    bundle = open_bundle(path)
    for runtime in ("onnxruntime", "tensorrt"):
        try:
            for candidate in select_variant(bundle.manifest, runtime, "cuda"):
                pipeline = open_pipeline(bundle, candidate)
                yield timed(f"{candidate.variant.name}, {runtime}", pipeline.run, frames)
                pipeline.close()
        except PoseSDKError as error:
            yield f"{runtime}: not measured, {error}", "-", "-", "-"


def timed(name: str, run: Run, frames: Sequence[Image]) -> Row:
    """A row: each frame waits for the one before."""
    show_line(name, err=True)
    for frame in frames[:WARM_UP]:
        run(frame)
    laps = []
    for frame in frames:
        start = time.perf_counter()
        run(frame)
        laps.append(1e3 * (time.perf_counter() - start))
    return name, *(f"{np.percentile(laps, part):.2f}" for part in (50, 95)), f"{1e3 / np.mean(laps):.1f}"


if __name__ == "__main__":
    main()
