"""A bundle from a checkpoint: graphs, the targets' files, self test, report and manifest."""

import errno
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk.bundle import GOLDEN_IMAGE, golden_expected, open_bundle, write_bundle, write_manifest
from posesdk.manifest import Manifest
from posesdk.outputs import writing
from posesdk.spec import InputSpec
from posesdk_converters.golden import expected_poses
from posesdk_converters.manifest import make_manifest, read_accuracy
from posesdk_converters.request import Request, check_request
from posesdk_converters.variants import make_variants, open_pictures
from posesdk_converters.verification.own_picture import require_selftest
from posesdk_converters.verification.record import Record, write_record
from posesdk_converters.verification.report import PAGE, write_report
from posesdk_runtimes.errors import GateError, PoseSDKError
from posesdk_training.checkpoint import Checkpoint, load_weights
from posesdk_training.models.build import PoseModel, build_model

__all__ = ["CONVERSION_REPORT", "Converted", "convert"]

CONVERSION_REPORT = "reports/conversion.json"


@dataclass(frozen=True)
class Converted:
    """A bundle that was written: its manifest, what was measured, and the folder of the report."""

    manifest: Manifest
    record: Record
    report: Path


def convert(checkpoint: Checkpoint, request: Request, output: Path, *, step: Callable[[str], None]) -> Converted:
    """Writes the bundle `output` in one step, and its report beside it; `step` is told what is being done.

    Raises ValueError as `check_request` and `read_calibration` do, GateError where a variant does not equal the torch
    model, loses more than the gate allows or fails the self test (the report is kept then, no bundle is written),
    SourceError for images and labels that cannot be read, and PoseSDKError where the bundle cannot be written.
    """
    check_request(checkpoint.spec, request)
    if output.is_dir():
        raise PoseSDKError(f"cannot write {output}: it is a folder; give the name of a file")
    accuracy = read_accuracy(request.accuracy)
    model = _model(checkpoint, request)
    pictures = open_pictures(request, model.spec)
    report = request.report or output.with_name(f"{output.stem}-report")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-")
    with _telling_of_full_disk(output.parent), scratch as name:
        folder = Path(name)
        record = make_variants(model, folder, pictures, request, step=step)
        step(f"writing {report}")
        with writing(report):
            write_report(record, pictures.photos, report)
        _require_passed(record, report)
        step("running the self test")
        _write_golden(model, folder, pictures.golden, (one.variant.input_size for one in record.judged))
        write_record(record, folder / CONVERSION_REPORT)
        write_manifest(folder, make_manifest(checkpoint, request, record, folder, accuracy))
        require_selftest(open_bundle(folder), report / PAGE)
        step(f"writing {output}")
        with writing(output):
            write_bundle(folder, output)
    return Converted(open_bundle(output).manifest, record, report)


@contextmanager
def _telling_of_full_disk(folder: Path) -> Iterator[None]:
    """The exporters of other libraries write there, too."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise PoseSDKError(f"cannot convert into {folder}: {error.strerror}; free some space there") from error


def _require_passed(record: Record, report: Path) -> None:
    failed = [f"{one.variant.name}: {one.fault}" for one in record.judged if one.fault is not None]
    failed += [f"{check.file}: TensorRT-RTX: {'; '.join(check.errors)}" for check in record.engines if not check.passed]
    failed += [
        f"{one.variant.name}: the float model finds nobody in {record.photos}, so that nothing is known of its int8"
        for one in record.judged
        if one.variant.precision == "int8" and one.verification is not None and one.verification.is_empty
    ]
    if failed:
        faults = "; ".join(failed)
        raise GateError(
            f"{faults}. The bundle was not written, the report is {report}. Give more calibration images that look "
            "like those of your cameras, with people in them, another --precision, or allow more with --max-ap-drop"
        )


def _model(checkpoint: Checkpoint, request: Request) -> PoseModel:
    spec = checkpoint.spec
    if request.name is not None:
        spec = spec.model_copy(update={"name": request.name})
    if request.input_size is not None:
        source = spec.input
        fixed = InputSpec(
            resize="fixed", size=request.input_size, multiple=source.multiple, mean=source.mean, std=source.std
        )
        spec = spec.model_copy(update={"input": fixed})
    model = build_model(spec)
    load_weights(model, checkpoint.state_dict, source=spec.name)
    return model.eval()


def _write_golden(
    model: PoseModel, folder: Path, image: NDArray[np.uint8], sizes: Iterable[tuple[int, int] | None]
) -> None:
    """The picture, and its poses at the model's own input size and at those that variants are fixed to."""
    (folder / GOLDEN_IMAGE).parent.mkdir()
    cv2.imwrite(str(folder / GOLDEN_IMAGE), image)
    for size in {None} | ({*sizes} - {model.spec.input.size}):
        text = json.dumps(expected_poses(model, image, size).to_dict()) + "\n"
        (folder / golden_expected(size)).write_text(text, encoding="utf-8")
