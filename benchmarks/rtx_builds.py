"""Parse and build every ONNX file for NVIDIA devices with TensorRT-RTX, on a machine without a GPU; print a table.

    python benchmarks/rtx_builds.py [CHECKPOINT] [--calibration COCO.json] [--fused]

Without calibration images, int8 ranges are those of random pictures: enough to build, not to detect anybody.
"""

import argparse
import tempfile
from pathlib import Path

from posesdk.bundle import default_bundle_path
from posesdk.terminal import show_line
from posesdk_converters.calibration import collect_feeds, read_calibration
from posesdk_converters.nvidia.rtx import INSTALL, RtxCheck, rtx_version, validate
from posesdk_converters.portable import export_portable
from posesdk_converters.target import Conversion, find_target
from posesdk_converters.verification.parity import open_pipeline
from posesdk_training.checkpoint import load_model

TARGETS = ("jetson", "cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=default_bundle_path().with_suffix(".safetensors"))
    parser.add_argument("--calibration", type=Path, help="folder or COCO file of the pictures for int8")
    parser.add_argument("--fused", action="store_true", help="the fused graph, too")
    options = parser.parse_args()
    if rtx_version() is None:
        parser.error(f"TensorRT-RTX is not installed: {INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        checks = build(options.checkpoint, Path(folder), options.calibration, fused=options.fused)
    show(checks)
    raise SystemExit(0 if all(check.passed for check in checks) else 1)


def build(checkpoint: Path, folder: Path, calibration: Path | None, *, fused: bool) -> list[RtxCheck]:
    model = load_model(checkpoint)
    portable = export_portable(model, folder)
    feeds = None
    if calibration is not None:
        with open_pipeline(model.spec, folder, portable, "onnxruntime") as pipeline:
            feeds = collect_feeds(read_calibration(calibration, few_allowed=True), pipeline)
    conversion = Conversion(folder, portable, model, fused=fused, feeds=feeds)
    variants = [portable]
    for name in TARGETS:
        target = find_target(name)
        for precision in target.PRECISIONS:
            variants += target.convert(conversion, precision)
    return validate(folder, variants)


def show(checks: list[RtxCheck]) -> None:
    show_line(f"TensorRT-RTX {checks[0].version}")
    show_line("| file | precision | parsed and built | build s | engine MiB |")
    show_line("| --- | --- | --- | --- | --- |")
    for check in checks:
        state = "yes" if check.passed else "; ".join(check.errors) or "no"
        show_line(
            f"| {check.file} | {check.precision} | {state} | {check.seconds or '-'} | {check.engine_mib or '-'} |"
        )


if __name__ == "__main__":
    main()
