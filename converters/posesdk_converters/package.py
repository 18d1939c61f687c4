"""A bundle from a checkpoint: graphs, the targets' files, self test, parity report and manifest."""

import datetime
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import onnx
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from posesdk import __version__
from posesdk.adapt import uses_attraction
from posesdk.bundle import GOLDEN_EXPECTED, GOLDEN_IMAGE, build_manifest_files, write_bundle, write_manifest
from posesdk.manifest import Accuracy, Licence, Manifest, Name, Precision, Variant
from posesdk.outputs import writing
from posesdk.spec import InputSpec, ModelSpec
from posesdk_converters.golden import expected_poses, golden_image
from posesdk_converters.onnx import export_adapt, export_trunk
from posesdk_converters.target import Conversion, find_target, portable_variant, target_names
from posesdk_converters.verify import Parity, verify_variants
from posesdk_runtimes.errors import ArtifactError, PoseSDKError, SourceError
from posesdk_training.checkpoint import Checkpoint, load_weights
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import LogoCap

__all__ = ["PARITY_REPORT", "Converted", "Request", "check_request", "convert"]

PARITY_REPORT = "reports/parity.json"
CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE_KEY, TRAINING_DATA_KEY = "weights_licence", "training_data"
"""Metadata of a checkpoint that goes into the manifest's licence; the data sets are separated by semicolons."""


@dataclass(frozen=True)
class Request:
    """What to make of a checkpoint; None for the model's own name, a free image size, the rendered picture."""

    targets: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32",)
    input_size: tuple[int, int] | None = None
    name: str | None = None
    version: str = "1"
    golden: Path | None = None
    accuracy: Path | None = None


@dataclass(frozen=True)
class Converted:
    """A bundle that was written, and how its variants compare with the torch model."""

    manifest: Manifest
    parities: tuple[Parity, ...]


def check_request(spec: ModelSpec, request: Request) -> None:
    """Raises ValueError for a name, a target, a precision or a size that cannot be had."""
    for title, value in (("name", request.name or spec.name), ("version", request.version)):
        if not _is_name(value):
            raise ValueError(
                f"{title} {value!r}: expected up to 100 letters, digits, dots, dashes and underscores, the first one a "
                f"letter or a digit; give another with --{title}"
            )
    if not request.targets:
        raise ValueError(f"no target; known: {', '.join(target_names())}")
    for name in request.targets:
        made = find_target(name).PRECISIONS
        if missing := [precision for precision in request.precisions if precision not in made]:
            raise ValueError(f"target {name} is made in {', '.join(made)} only, not in {', '.join(missing)}")
    multiple = spec.input.multiple
    if request.input_size is not None and any(side <= 0 or side % multiple for side in request.input_size):
        height, width = request.input_size
        raise ValueError(f"input size {height}x{width}: both sides must be multiples of {multiple}")


def convert(checkpoint: Checkpoint, request: Request, output: Path, *, step: Callable[[str], None]) -> Converted:
    """Writes the bundle `output` in one step; `step` is told what is being done.

    Raises ValueError as `check_request` does, GateError where a variant does not equal the torch model, and
    PoseSDKError where the bundle cannot be written.
    """
    check_request(checkpoint.spec, request)
    if output.is_dir():
        raise PoseSDKError(f"cannot write {output}: it is a folder; give the name of a file")
    accuracy = _read_accuracy(request.accuracy)
    image = golden_image(request.golden)
    model = _model(checkpoint, request)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-")
    with scratch as name:
        folder = Path(name)
        portable = _export(model, folder, request, step)
        variants: tuple[Variant, ...] = ()
        for target in request.targets:
            step(f"converting for target {target}")
            conversion = Conversion(folder, portable, model, input_size=request.input_size)
            for precision in request.precisions:
                variants += find_target(target).convert(conversion, precision)
        variants += (portable,)
        step("comparing every variant with the torch model")
        parities = verify_variants(model, folder, variants, image)
        _write_golden(model, folder, image)
        _write_report(folder, parities)
        step(f"writing {output}")
        manifest = _manifest(checkpoint, model.spec, folder, request, variants=variants, accuracy=accuracy)
        write_manifest(folder, manifest)
        with writing(output):
            write_bundle(folder, output)
    return Converted(manifest, parities)


def _is_name(text: str) -> bool:
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True


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


def _write_golden(model: LogoCap, folder: Path, image: NDArray[Any]) -> None:
    (folder / GOLDEN_IMAGE).parent.mkdir()
    cv2.imwrite(str(folder / GOLDEN_IMAGE), image)
    poses = expected_poses(model, image)
    (folder / GOLDEN_EXPECTED).write_text(json.dumps(poses.to_dict()) + "\n", encoding="utf-8")


def _write_report(folder: Path, parities: tuple[Parity, ...]) -> None:
    path = folder / PARITY_REPORT
    path.parent.mkdir()
    content = {"reference": f"torch {torch.__version__}", "parity": [parity.to_dict() for parity in parities]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _manifest(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    folder: Path,
    request: Request,
    *,
    variants: tuple[Variant, ...],
    accuracy: tuple[Accuracy, ...],
) -> Manifest:
    notes = dict(checkpoint.metadata)
    weights = notes.pop(WEIGHTS_LICENCE_KEY, "not stated")
    data = [name.strip() for name in notes.pop(TRAINING_DATA_KEY, "").split(";")]
    return Manifest(
        id=spec.name,
        version=request.version,
        model=spec,
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        variants=variants,
        files=build_manifest_files(folder),
        accuracy=accuracy,
        licence=Licence(code=CODE_LICENCE, weights=weights, training_data=tuple(name for name in data if name)),
        provenance={
            **notes,
            "converter": f"posesdk {__version__}, torch {torch.__version__}, onnx {onnx.__version__}",
        },
    )


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
