"""CPU time of a model as two graphs and as one fused graph, both on ONNX Runtime with one thread.

    python benchmarks/fused_time.py PICTURES [CHECKPOINT] [--limit 20]

It says nothing about a GPU, which the fused graph is made for.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import default_bundle_path
from posesdk.fused import FusedPipeline
from posesdk.pipeline import Pipeline
from posesdk.sources import read_image
from posesdk.terminal import show_line
from posesdk_converters.nvidia.fused import export_fused
from posesdk_converters.onnx import export_adapt, export_trunk
from posesdk_runtimes.base import Runtime
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_model
from posesdk_training.models.logocap import LogoCap

REPEATS = 4
Image = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=default_bundle_path().with_suffix(".safetensors"))
    parser.add_argument("--limit", type=int, default=20)
    options = parser.parse_args()
    images = [read_image(path) for path in sorted(options.pictures.iterdir())[: options.limit]]
    model = load_model(options.checkpoint).eval()
    with tempfile.TemporaryDirectory() as folder:
        pipelines = open_both(model, Path(folder))
        threshold = model.spec.decode.score_threshold
        show_line(f"{model.spec.name}, {len(images)} pictures, CPU ms a picture, mean of the best of {REPEATS}")
        show_line("| | every candidate | those that can reach the score threshold |")
        show_line("| --- | --- | --- |")
        for name, pipeline in pipelines.items():
            every, few = (milliseconds(pipeline, images, floor) for floor in (0.0, threshold))
            show_line(f"| {name} | {every:.0f} | {few:.0f} |")
            pipeline.close()


def open_both(model: LogoCap, folder: Path) -> dict[str, Pipeline]:
    names = {name: folder / f"{name}.onnx" for name in ("trunk", "adapt", "fused")}
    export_trunk(model, names["trunk"])
    export_adapt(model, names["adapt"])
    export_fused(model, names["fused"])
    trunk, adapt, fused = (_open(path) for path in names.values())
    return {
        "two graphs": Pipeline(model.spec, trunk, adapt),
        "fused": FusedPipeline(model.spec, fused, None, model.spec),
    }


def _open(path: Path) -> Runtime:
    return open_runtime(path, runtime="onnxruntime", threads=1)


def milliseconds(pipeline: Pipeline, images: list[Image], floor: float) -> float:
    best = np.full(len(images), np.inf)
    for _ in range(REPEATS):
        for index, image in enumerate(images):
            start = time.process_time()
            pipeline.run(image, floor)
            best[index] = min(best[index], time.process_time() - start)
    return float(best.mean() * 1e3)


if __name__ == "__main__":
    main()
