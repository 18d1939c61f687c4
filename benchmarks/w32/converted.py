"""Models as the converters make them for CPUs, kept in a folder so that they are made once."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from posesdk.manifest import Precision, Variant
from posesdk.pipeline import Pipeline, settled
from posesdk.spec import ModelSpec
from posesdk_converters.calibration import Feeds
from posesdk_converters.portable import export_portable
from posesdk_converters.target import Conversion, find_target
from posesdk_runtimes.registry import open_runtime
from posesdk_training.models.logocap import LogoCap
from w32.weights import random_contexts, random_pictures

__all__ = ["convert_once", "open_converted"]

NAMES = "variants.json"
CALIBRATION_PICTURES = 2
"""Enough to quantize for speed, not to detect anybody."""

Step = Callable[[str], None]
Size = tuple[int, int]


def convert_once(
    model: LogoCap, folder: Path, precisions: Sequence[Precision], *, size: Size | None = None, step: Step
) -> dict[Precision, Variant]:
    """The variants of a model for CPUs in `folder`, made where they are not there yet.

    The trunk is of `size` (height, width), of any for None; int8, which needs a size, is calibrated on random pictures
    of it. `step` is told what is being done.
    """
    if not (folder / NAMES).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        variants = _convert(model, folder, precisions, size, step)
        (folder / NAMES).write_text(json.dumps([variant.model_dump(mode="json") for variant in variants]))
    kept = [Variant.model_validate(entry) for entry in json.loads((folder / NAMES).read_text())]
    return {variant.precision: variant for variant in kept}


def _convert(
    model: LogoCap, folder: Path, precisions: Sequence[Precision], size: Size | None, step: Step
) -> list[Variant]:
    """In a scratch folder first, so that what was interrupted is made anew."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        portable = export_portable(model, scratch, input_size=size, step=step)
        conversion = Conversion(scratch, portable, model, feeds=_random_feeds(model.spec, size) if size else None)
        variants: list[Variant] = []
        for precision in precisions:
            step(f"converting to {precision}")
            variants += find_target("cpu").convert(conversion, precision)
        for variant in variants:
            os.replace(scratch / variant.name, folder / variant.name)
    return variants


def _random_feeds(spec: ModelSpec, size: Size) -> Feeds:
    pictures = random_pictures(CALIBRATION_PICTURES, size)
    return Feeds(tuple(pictures), (random_contexts(spec, CALIBRATION_PICTURES),))


def open_converted(spec: ModelSpec, folder: Path, trunk: Variant, adapt: Variant, *, threads: int) -> Pipeline:
    """The trunk of one variant and the adapt graph of the same or of another one, on OpenVINO."""
    assert adapt.adapt is not None
    first, second = (
        open_runtime(folder / path, runtime="openvino", precision=variant.runtime_precision, threads=threads)
        for path, variant in ((trunk.trunk, trunk), (adapt.adapt, adapt))
    )
    return Pipeline(settled(spec, spec.decode, trunk.input_size), first, second)
