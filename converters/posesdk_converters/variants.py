"""Everything that a conversion makes of a model, each variant judged beside the float model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posesdk.manifest import Variant
from posesdk.pipeline import Pipeline
from posesdk.spec import ModelSpec
from posesdk.verify import Reference
from posesdk_converters.calibration import CalibrationImages, Feeds, collect_feeds, read_calibration
from posesdk_converters.golden import golden_image
from posesdk_converters.nvidia.rtx import RtxCheck, validate
from posesdk_converters.portable import export_portable
from posesdk_converters.request import Request, planned
from posesdk_converters.target import Conversion, find_target
from posesdk_converters.verification.judge import Judge, Judged
from posesdk_converters.verification.parity import open_pipeline, verify_variants
from posesdk_converters.verification.photos import Photos, open_photos
from posesdk_converters.verification.record import Record, file_size, tool_versions
from posesdk_training.models.build import PoseModel

__all__ = ["Pictures", "make_variants", "open_pictures"]

Step = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The golden image (H, W, 3) uint8 BGR, the photos to verify on, and those to calibrate int8 with, if any."""

    golden: NDArray[np.uint8]
    photos: Photos
    calibration: CalibrationImages | None


def open_pictures(request: Request, spec: ModelSpec) -> Pictures:
    """What a request names. Raises SourceError for what cannot be read, ValueError for too few calibration images."""
    golden = golden_image(request.golden)
    calibration = None
    if request.calibration is not None:
        few_allowed = request.few_images or not request.quantizes
        calibration = read_calibration(request.calibration, few_allowed=few_allowed)
    photos = open_photos(request, calibration, golden, spec)
    return Pictures(golden, photos, calibration if request.quantizes else None)


def make_variants(model: PoseModel, folder: Path, pictures: Pictures, request: Request, *, step: Step) -> Record:
    """Writes the graphs of all targets into the bundle's folder; what was measured of each.

    The variants stand in the order of the request, the portable one last unless it was asked for. What misses the gate
    stands in the record. Raises GateError where a float32 variant does not equal torch.
    """
    notes: dict[str, str] = {}
    portable = export_portable(model, folder, input_size=request.input_size, step=step)
    with open_pipeline(model.spec, folder, portable, "onnxruntime") as pipeline:
        feeds = _feeds(pictures.calibration, pipeline, step)
        conversion = Conversion(folder, portable, model, feeds, request.input_size, request.fused, notes)
        reference = Reference(pipeline, pictures.photos, pictures.photos.labels)
        judge = Judge(model.spec, folder, reference, request.gate, step, len(pictures.photos))
        judged = tuple(_judged(judge, conversion, request, step))
    engines = _build_engines(folder, judged, step)
    step("comparing the float variants with the torch model")
    exact = [one.variant for one in judged if one.variant.precision == "fp32" and one.variant.graphs == "split"]
    return Record(
        spec=model.spec,
        gate=request.gate,
        photos=pictures.photos.description,
        labelled=pictures.photos.labels is not None,
        calibration=pictures.calibration,
        judged=judged,
        sizes={one.variant.name: file_size(one.variant, folder) for one in judged},
        parities=verify_variants(model, folder, exact, pictures.golden),
        ranking=judge.ranking,
        engines=engines,
        versions=tool_versions(),
        notes=notes,
    )


def _judged(judge: Judge, conversion: Conversion, request: Request, step: Step) -> Iterator[Judged]:
    waiting = True
    for name, precision in planned(request):
        step(f"converting for target {name}, {precision}")
        made = judge.convert(find_target(name), conversion, precision)
        if not made and waiting:  # the portable graphs are all that the target takes
            made, waiting = (judge.judge(conversion.portable),), False
        yield from made
    if waiting:
        yield judge.judge(conversion.portable)


def _feeds(calibration: CalibrationImages | None, pipeline: Pipeline, step: Step) -> Feeds | None:
    if calibration is None:
        return None
    title, count = "running the float model on calibration images", len(calibration.paths)
    step(title)
    return collect_feeds(calibration, pipeline, lambda done: step(f"{title}, {done} of {count}"))


def _build_engines(folder: Path, judged: Sequence[Judged], step: Step) -> tuple[RtxCheck, ...]:
    variants: list[Variant] = [one.variant for one in judged if "tensorrt" in one.variant.runtime]
    if not variants:
        return ()
    step("building engines with TensorRT-RTX")
    return tuple(validate(folder, variants))
