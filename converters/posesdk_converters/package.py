"""A bundle from a checkpoint: graphs, the targets' files, self test, parity report and manifest."""

import datetime
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from posesdk.adapt import uses_attraction
from posesdk.bundle import (
    GOLDEN_IMAGE,
    build_manifest_files,
    golden_expected,
    open_bundle,
    write_bundle,
    write_manifest,
)
from posesdk.manifest import Accuracy, Licence, Manifest, Variant
from posesdk.outputs import writing
from posesdk.pipeline import Pipeline
from posesdk.spec import InputSpec
from posesdk.verify import Reference
from posesdk_converters.calibration import CalibrationImages, Feeds, collect_feeds, read_calibration
from posesdk_converters.golden import expected_poses, golden_image
from posesdk_converters.nvidia.rtx import RtxCheck, validate
from posesdk_converters.onnx import export_adapt, export_trunk
from posesdk_converters.request import Request, check_request, planned
from posesdk_converters.target import Conversion, find_target, portable_variant
from posesdk_converters.verification.judge import Judge, Judged
from posesdk_converters.verification.parity import open_pipeline, verify_variants
from posesdk_converters.verification.photos import Photos, open_photos
from posesdk_converters.verification.record import (
    Record,
    accuracy_of,
    describe_calibration,
    file_size,
    tool_versions,
    write_record,
)
from posesdk_converters.verification.report import write_report
from posesdk_runtimes.errors import ArtifactError, GateError, PoseSDKError, SourceError
from posesdk_training.checkpoint import Checkpoint, load_weights
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import LogoCap

__all__ = ["CONVERSION_REPORT", "Converted", "convert"]

CONVERSION_REPORT = "reports/conversion.json"
CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE_KEY, TRAINING_DATA_KEY = "weights_licence", "training_data"
"""Metadata of a checkpoint that goes into the manifest's licence; the data sets are separated by semicolons."""


@dataclass(frozen=True)
class Converted:
    """A bundle that was written, how its float variants compare with torch, and all of them with the float model."""

    manifest: Manifest
    record: Record
    report: Path


def convert(checkpoint: Checkpoint, request: Request, output: Path, *, step: Callable[[str], None]) -> Converted:
    """Writes the bundle `output` in one step, and its report beside it; `step` is told what is being done.

    Raises ValueError as `check_request` and `read_calibration` do, GateError where a variant does not equal the torch
    model or loses more than the gate allows (the report is kept then, no bundle is written), SourceError for images and
    labels that cannot be read, and PoseSDKError where the bundle cannot be written.
    """
    check_request(checkpoint.spec, request)
    if output.is_dir():
        raise PoseSDKError(f"cannot write {output}: it is a folder; give the name of a file")
    accuracy = _read_accuracy(request.accuracy)
    image = golden_image(request.golden)
    calibration = None
    if request.calibration is not None and request.quantizes:
        calibration = read_calibration(request.calibration, few_allowed=request.few_images)
    model = _model(checkpoint, request)
    photos = open_photos(request, calibration, image, model.spec)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-")
    with scratch as name:
        folder = Path(name)
        work = _Work(model, folder, request, photos, calibration, step)
        record = work.run(image)
        _write_golden(model, folder, image, {one.variant.input_size for one in record.judged})
        report = request.report or output.with_name(f"{output.stem}-report")
        step(f"writing {report}")
        with writing(report):
            write_report(record, photos, report)
        _require_passed(record, report)
        write_record(record, folder / CONVERSION_REPORT)
        step(f"writing {output}")
        write_manifest(folder, _manifest(checkpoint, work, record, accuracy))
        with writing(output):
            write_bundle(folder, output)
    return Converted(open_bundle(output).manifest, record, report)


@dataclass
class _Work:
    """One conversion: graphs, variants and what is known of them."""

    model: LogoCap
    folder: Path
    request: Request
    photos: Photos
    calibration: CalibrationImages | None
    step: Callable[[str], None]
    notes: dict[str, str] = field(default_factory=dict)

    def run(self, image: NDArray[np.uint8]) -> Record:
        """Exports, converts and verifies everything that was asked for."""
        portable = _export(self.model, self.folder, self.request, self.step)
        spec = self.model.spec
        with open_pipeline(spec, self.folder, portable, "onnxruntime") as pipeline:
            conversion = Conversion(
                self.folder,
                portable,
                self.model,
                self._feeds(pipeline),
                input_size=self.request.input_size,
                fused=self.request.fused,
                notes=self.notes,
            )
            reference = Reference(pipeline, self.photos, self.photos.labels)
            judge = Judge(spec, self.folder, reference, self.request.gate, self.step, len(self.photos))
            judged: tuple[Judged, ...] = ()
            for name, precision in planned(self.request):
                self.step(f"converting for target {name}, {precision}")
                found = judge.convert(find_target(name), conversion, precision)
                judged += found or (judge.judge(portable),)
            if all(one.variant != portable for one in judged):
                judged += (judge.judge(portable),)
        engines = self._build_engines([one.variant for one in judged if "tensorrt" in one.variant.runtime])
        self.step("comparing the float variants with the torch model")
        exact = [one.variant for one in judged if one.variant.precision == "fp32" and one.variant.graphs == "split"]
        parities = verify_variants(self.model, self.folder, exact, image)
        return Record(
            spec=spec,
            gate=self.request.gate,
            photos=self.photos.description,
            labelled=self.photos.labels is not None,
            calibration=self.calibration,
            judged=judged,
            sizes={one.variant.name: file_size(one.variant, self.folder) for one in judged},
            parities=parities,
            ranking=judge.ranking,
            engines=engines,
            versions=tool_versions(),
            notes=dict(self.notes),
        )

    def _build_engines(self, variants: Sequence[Variant]) -> tuple[RtxCheck, ...]:
        if not variants:
            return ()
        self.step("building engines with TensorRT-RTX")
        return tuple(validate(self.folder, variants))

    def _feeds(self, pipeline: Pipeline) -> Feeds | None:
        if self.calibration is None:
            return None
        title, count = "running the float model on calibration images", len(self.calibration.paths)
        self.step(title)
        return collect_feeds(self.calibration, pipeline, lambda done: self.step(f"{title}, {done} of {count}"))


def _require_passed(record: Record, report: Path) -> None:
    failed = [f"{one.variant.name}: {one.fault}" for one in record.judged if one.fault is not None]
    failed += [f"{check.file}: TensorRT-RTX: {'; '.join(check.errors)}" for check in record.engines if not check.passed]
    if failed:
        faults = "; ".join(failed)
        raise GateError(
            f"{faults}. The bundle was not written, the report is {report}. Give more calibration images that look "
            "like those of your cameras, another --precision, or allow more with --max-ap-drop"
        )


def _model(checkpoint: Checkpoint, request: Request) -> LogoCap:
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


def _export(model: LogoCap, folder: Path, request: Request, step: Callable[[str], None]) -> Variant:
    adapt = uses_attraction(model.spec)
    portable = portable_variant(adapt=adapt, input_size=request.input_size or model.spec.input.size)
    (folder / portable.trunk).parent.mkdir()
    step("exporting trunk")
    export_trunk(model, folder / portable.trunk, input_size=portable.input_size)
    if portable.adapt is not None:
        step("exporting adapt")
        export_adapt(model, folder / portable.adapt)
    return portable


def _write_golden(model: LogoCap, folder: Path, image: NDArray[Any], sizes: set[tuple[int, int] | None]) -> None:
    """The picture, and its poses at the model's own input size and at those that variants are fixed to."""
    (folder / GOLDEN_IMAGE).parent.mkdir()
    cv2.imwrite(str(folder / GOLDEN_IMAGE), image)
    for size in {None} | (sizes - {model.spec.input.size}):
        text = json.dumps(expected_poses(model, image, size).to_dict()) + "\n"
        (folder / golden_expected(size)).write_text(text, encoding="utf-8")


def _manifest(checkpoint: Checkpoint, work: _Work, record: Record, accuracy: tuple[Accuracy, ...]) -> Manifest:
    notes = dict(checkpoint.metadata)
    weights = notes.pop(WEIGHTS_LICENCE_KEY, "not stated")
    data = [name.strip() for name in notes.pop(TRAINING_DATA_KEY, "").split(";")]
    spec = work.model.spec
    return Manifest(
        id=spec.name,
        version=work.request.version,
        model=spec,
        created=_time_of_sources(),
        variants=tuple(one.variant for one in record.judged),
        files=build_manifest_files(work.folder),
        accuracy=(*accuracy, *accuracy_of(record, known=accuracy)),
        licence=Licence(code=CODE_LICENCE, weights=weights, training_data=tuple(name for name in data if name)),
        provenance={
            **notes,
            **record.notes,
            **({} if record.calibration is None else {"calibration": describe_calibration(record.calibration)}),
            "converter": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        },
    )


def _time_of_sources() -> str | None:
    """The time in $SOURCE_DATE_EPOCH, the convention of reproducible builds; no time without it: equal checkpoints and
    tools give equal bundles."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not seconds.isdigit():
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_accuracy(path: Path | None) -> tuple[Accuracy, ...]:
    if path is None:
        return ()
    try:
        content = json.loads(path.read_bytes())
        entries = content if isinstance(content, list) else [content]
        return TypeAdapter(tuple[Accuracy, ...]).validate_python(entries)
    except OSError as error:
        raise SourceError(f"accuracy {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValidationError, ValueError) as error:
        raise ArtifactError(
            f"accuracy {path}: not a list of objects with variant, dataset, images and metrics ({error}); "
            "give a file that `posesdk-train evaluate --accuracy` wrote"
        ) from error
